"""The processes that :mod:`benchmarks.where` measures: a worker of all pools, and a submitter.

Each does what its :class:`Task` says, and speaks in lines of JSON on standard output; a line on its standard input
takes it one step on.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import uvloop
from msgspec.structs import replace

from benchmarks.flame import Sampler, task_of_turns
from handlers.cli.main import OBJECTS_BETWEEN_COLLECTIONS
from handlers.producer import AsyncProducer
from tasks import logs
from tasks.access.redact import Redactor
from tasks.agents.fake import FakeRunner
from tasks.runtime import Worker
from tasks.settings import PoolSettings, ScalingSettings, Settings
from tasks.settings_load import load
from tasks.stores.bodies import BodyStore
from tasks.stores.connect import Stores, connect
from tasks.stores.escalations import EscalationStore
from tasks.stores.objects import MemoryObjectStore
from tasks.stores.results import ResultStore
from tasks.stores.sessions import SessionStore

SWITCHED_OFF: Final = {
    "classifier": "requests name their intent",
    "agents": "a fake answers",
    "audit": "segments stay in memory",
    "object store": "results stay in memory",
    "batching": "max_batch=1",
}
ASKED: Final = (
    ("How do I reset my password on portal {}?", "answer_question"),
    ("Plan the rollout of feature {} step by step", "plan_task"),
    ("Run SELECT count(*) FROM orders WHERE id > {}", "query_data"),
    ("Write an email about incident {}", "draft_text"),
    ("I want to talk to a person about ticket {}", "talk_to_human"),
    ("Summarise: item {} arrived late. It was broken. We refunded it.", "summarize_text"),
)
WARM_UP: Final = 48
GIVE_UP_SECONDS: Final = 300.0
LOOK_SECONDS: Final = 0.2


@dataclass(frozen=True)
class Task:
    """What a process is to do. ``off`` names the part that is switched off."""

    role: str
    off: str
    requests: int
    concurrency: int
    profile: bool


class Meter:
    """Measures this process's CPU from its making on."""

    def __init__(self, *, profile: bool) -> None:
        self._begun = time.process_time()
        self._sampler = Sampler() if profile else None
        if self._sampler:
            self._sampler.start()

    def stop(self) -> dict[str, Any]:
        if self._sampler is None:
            return {"seconds": time.process_time() - self._begun}
        return {
            "seconds": self._sampler.stop(),
            "samples": self._sampler.samples,
            "stacks": list(self._sampler.stacks.items()),
        }


def tell(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


async def told() -> str:
    return await asyncio.to_thread(sys.stdin.readline)


async def work(task: Task) -> None:
    """Serve all pools; measure from the first line on standard input to the second."""
    settings = load().changed(scaling=ScalingSettings(default=PoolSettings(concurrency=task.concurrency)))
    if task.off == "batching":
        settings = settings.changed(intent=settings.intent.changed(max_batch=1))
    runner = FakeRunner() if task.off == "agents" else None
    async with Worker(settings, settings.pools, runner=runner, open_stores=_stores_without(task.off)) as worker:
        stopping = asyncio.Event()
        serving = asyncio.create_task(worker.run(stopping))
        tell("ready")
        await told()
        meter = Meter(profile=task.profile)
        tell("begun")
        await told()
        tell(meter.stop())
        stopping.set()
        await serving


def _stores_without(off: str) -> Callable[[Settings], Stores]:
    def opened(settings: Settings) -> Stores:
        stores = connect(settings)
        memory = MemoryObjectStore()
        if off == "audit":
            return replace(stores, audit=memory)
        if off == "object store":
            bodies = BodyStore(memory, inline_bytes=settings.queue.inline_bytes)
            return replace(
                stores,
                data=memory,
                bodies=bodies,
                results=ResultStore(memory),
                sessions=SessionStore(memory),
                escalations=EscalationStore(memory),
            )
        return stores

    return opened


async def submit(task: Task) -> None:
    """Warm the worker up, then submit and wait for the results; measure that."""
    settings = load()
    async with AsyncProducer(settings) as producer, connect(settings) as stores:

        async def ask(count: int) -> Counter[str]:
            items = [_item(number, named=task.off == "classifier") for number in range(count)]
            ids = await producer.submit_many(items)
            if task.off != "object store":
                return Counter([r.status.value async for r in producer.results(ids, GIVE_UP_SECONDS)])
            refs = [f"default/{request_id}" for request_id in ids]
            while any(await stores.register.are_open(refs)):  # noqa: ASYNC110  another process ends them
                await asyncio.sleep(LOOK_SECONDS)
            return Counter(succeeded=count)

        await ask(WARM_UP)
        tell("ready")
        await told()
        meter = Meter(profile=task.profile)
        statuses = await ask(task.requests)
        tell({**meter.stop(), "statuses": statuses})
        await told()


def _item(number: int, *, named: bool) -> dict[str, Any]:
    text, intent = ASKED[number % len(ASKED)]
    return {"text": text.format(number), **({"intent": intent} if named else {})}


async def measured(work: Coroutine[Any, Any, None], *, profile: bool) -> None:
    if profile:
        asyncio.get_running_loop().set_task_factory(task_of_turns)  # type: ignore[arg-type]  # its stub knows futures
    await asyncio.create_task(work)


def be(task: Task) -> None:
    """Be the process of ``task``."""
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    settings = load()
    logs.configure(settings.log_level, Redactor.of(settings.auditing))
    uvloop.run(measured({"worker": work, "submitter": submit}[task.role](task), profile=task.profile))
    os._exit(0)  # as the command line ends


if __name__ == "__main__":
    be(Task(**json.loads(sys.argv[1])))
