"""A worker that kills itself the first time that each request reaches a step. Usage: POOL STEP MARKERS"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import kombu.transport.redis
import structlog

from tasks.app import run_worker
from tasks.runtime import WorkerRuntime, worker_name
from tasks.settings import load

POOL, STEP, MARKERS = sys.argv[1], sys.argv[2], Path(sys.argv[3])


def die_once(request_id: str) -> None:
    """End this process as a power cut would, unless it has done so for this request."""
    marker = MARKERS / request_id
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def at_step(step: str) -> None:
    """Die at the step that the test asked for."""
    if step == STEP:
        die_once(structlog.contextvars.get_contextvars()["request_id"])


def die_between_pop_and_record() -> None:
    """Make the broker's client die after it has popped a message and before it has recorded that."""
    record = kombu.transport.redis.QoS.append

    def append(self: Any, message: Any, delivery_tag: str) -> None:
        die_once(message.headers["ref"].rpartition("/")[2])
        record(self, message, delivery_tag)

    kombu.transport.redis.QoS.append = append


if __name__ == "__main__":
    if STEP == "pop":
        die_between_pop_and_record()
    settings = load()
    name = worker_name(POOL)
    sys.exit(run_worker(settings, POOL, name, WorkerRuntime(settings, POOL, name, passed=at_step), lambda: None))
