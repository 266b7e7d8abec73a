"""The Celery application of a worker process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NoReturn

from celery import Celery
from kombu import Exchange, Queue

from tasks import keys
from tasks.pool import Handler, LoopPool
from tasks.settings import Settings
from tasks.stores.redis_broker import transport_options


def make_app(settings: Settings, pool: str, handler: Handler) -> Celery:
    """Return the application that serves ``pool``."""
    app = Celery("sluice", broker=settings.redis_url, set_as_current=False)
    app.conf.update(
        broker_transport="tasks.stores.transport:Transport",
        task_ignore_result=True,
        task_acks_late=True,
        task_queues=[_queue(name) for name in keys.queues(pool)],
        task_create_missing_queues=False,
        task_serializer="json",
        accept_content=["json"],
        broker_transport_options=transport_options(pool, visibility_seconds=settings.queue.visibility_seconds),
        broker_connection_retry_on_startup=True,
        worker_enable_remote_control=False,
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_pool=LoopPool,
        worker_concurrency=settings.pool(pool).concurrency,
        worker_send_task_events=False,
    )
    app.conf["sluice_handler"] = handler
    app.conf["sluice_grace_seconds"] = settings.scaling.grace_seconds
    for name in (keys.ROUTE_TASK, keys.WORK_TASK):
        app.task(name=name, acks_late=True, ignore_result=True)(_only_in_the_loop_pool)
    return app


def run_worker(settings: Settings, pool: str, name: str, handler: Handler, on_ready: Callable[[], None]) -> int:
    """Serve ``pool`` until told to stop; return the exit code. SIGTERM drains."""
    app = make_app(settings, pool, handler)
    logging.getLogger("celery.redirected").setLevel(logging.WARNING)
    worker = app.Worker(
        hostname=name,
        pool=LoopPool,
        concurrency=settings.pool(pool).concurrency,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel="WARNING",
        quiet=True,
        ready_callback=lambda _consumer: on_ready(),
    )
    worker.start()
    return int(worker.exitcode or 0)


def _queue(name: str) -> Queue:
    # The default exchange routes by queue name: no binding tables to look up.
    return Queue(name, Exchange("", type="direct"), routing_key=name)


def _only_in_the_loop_pool(*_: Any) -> NoReturn:
    raise RuntimeError("these tasks run in tasks.pool.LoopPool: start workers with `sluice worker`")
