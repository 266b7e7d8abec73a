"""A worker of the harness's workload: Sluice's own worker, whose classifier and agents are those of the harness.

Serves every pool. Results lie where the harness counts them, and each that was created is noted in its log.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import AsyncIterator
from typing import Final

import work
from msgspec.structs import replace

from handlers.cli.main import OBJECTS_BETWEEN_COLLECTIONS
from intent.batch_policy import Limits, Policy
from intent.batching import Batcher
from tasks.agents.types import AgentAnswer, AgentTask
from tasks.contracts.asked import Asked
from tasks.contracts.result import IntentInfo
from tasks.runtime import Worker, run
from tasks.settings import PoolSettings, ScalingSettings, Settings
from tasks.settings_load import load
from tasks.stores.connect import Stores, connect
from tasks.stores.objects import ObjectStore
from tasks.stores.results import ResultStore

INTENTS: Final = {
    "planner": "plan_task",
    "sql": "query_data",
    "api": "call_api",
    "writer": "draft_text",
    "chat": "answer_question",
    "human": "talk_to_human",
}
CONCURRENCY: Final = 400
"""Requests at a time in each pool and process, as many as the raw loop's."""
RESULTS: Final = "results/default/"


class Counted:
    """An object store whose results the harness finds and counts."""

    def __init__(self, store: ObjectStore, log: str) -> None:
        self._store = store
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def create(self, key: str, data: bytes) -> None:
        flat = key.removeprefix(RESULTS)
        await self._store.create(flat, data)
        if flat != key:
            os.write(self._log, f"{flat.removesuffix('.json')} {time.time():.6f}\n".encode())

    async def get(self, key: str) -> bytes:
        return await self._store.get(key.removeprefix(RESULTS))

    async def exists(self, key: str) -> bool:
        return await self._store.exists(key.removeprefix(RESULTS))

    def list(self, prefix: str) -> AsyncIterator[str]:
        return self._store.list(prefix)


class Agents:
    """The harness's typed agents."""

    async def run(self, task: AgentTask) -> AgentAnswer:
        return AgentAnswer(output=await work.run_agent(task.agent.type, task.text), model="canned")

    async def close(self) -> None:
        return


def open_stores(settings: Settings) -> Stores:
    stores = connect(settings)
    counted = Counted(stores.data, os.environ["PEERS_DONE_LOG"])
    return replace(stores, data=counted, results=ResultStore(counted))


def main() -> None:
    pool = PoolSettings(concurrency=CONCURRENCY)
    settings = load().changed(scaling=ScalingSettings(default=pool, grace_seconds=10))
    work.classify("warm up")
    batcher: Batcher[str, str] = Batcher(str, work.classify_batch, Policy(Limits(max_batch=8)))

    async def classify(asked: Asked) -> IntentInfo:
        label = await batcher.submit(asked.text)
        return IntentInfo(label=INTENTS[label], confidence=1.0, model_version="harness")

    run(Worker(settings, settings.pools, classify=classify, runner=Agents(), open_stores=open_stores))


if __name__ == "__main__":
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    main()
