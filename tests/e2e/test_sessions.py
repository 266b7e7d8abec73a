"""Turns of a session under fire: raced against each other, a worker that stands still, Redis wiped."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from handlers.producer import AsyncProducer
from tasks import keys
from tasks.agents.state import messages_of
from tasks.settings import Settings
from tasks.settings_load import load
from tasks.stores.connect import Stores, connect
from tests.e2e.conftest import Fleet

RESPONDER = keys.agent_pool("responder")
SLOW = {
    "SLUICE_DEFAULT_MODEL": "slow",
    "SLUICE_MODELS": '{"slow": {"provider": "canned", "delay_seconds": 0.4}}',
}
_LAPSED_SECONDS = 3.5
"""When what a worker held that stands still has been taken over: a lease of 1.5 s, two heartbeats, a sweep."""


@asynccontextmanager
async def stopped(process: subprocess.Popen[bytes]) -> AsyncIterator[None]:
    """Have ``process`` stand still, as a long pause of its machine would."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@dataclass
class Race:
    """Two turns of each of some sessions, submitted at the same time by two producers."""

    tenant: str
    left: AsyncProducer
    right: AsyncProducer
    stores: Stores
    sessions: list[str]

    async def submit(self, producer: AsyncProducer, turn: str) -> None:
        """Submit a turn, or submit it again."""
        session = turn.rpartition("-")[0]
        await producer.submit(f"This is {turn}.", id=turn, session_id=session, intent="answer_question")

    async def start(self) -> dict[str, list[str]]:
        """Submit all turns; return for each session the order in which its turns were accepted."""
        await asyncio.gather(
            *(
                self.submit(producer, f"{session}-{side}")
                for session in self.sessions
                for producer, side in random.sample([(self.left, "a"), (self.right, "b")], 2)
            )
        )
        order = await self.lines()
        assert all(len(turns) == 2 for turns in order.values())
        return order

    async def lines(self) -> dict[str, list[str]]:
        """Return the open turns of each session, in the order in which they are to be taken."""
        lines = [("LRANGE", keys.session_line(self.tenant, session), 0, -1) for session in self.sessions]
        found = await self.stores.link.calls(lines)
        return {
            session: [ref.decode().rpartition("/")[2] for ref in line]
            for session, line in zip(self.sessions, found, strict=True)
        }

    async def wipe(self, order: dict[str, list[str]]) -> dict[str, list[str]]:
        """Lose everything in Redis, and submit everything again; return the order in which turns are taken now."""
        await self.stores.link.call("FLUSHALL")

        async def again(turns: Sequence[str]) -> None:
            for turn in turns:
                await self.submit(self.left, turn)

        await asyncio.gather(*map(again, order.values()))
        lines = await self.lines()
        # What is not in its line any more has ended, and so came before what still is.
        return {
            session: sorted(turns, key=lambda turn: lines[session].index(turn) if turn in lines[session] else -1)
            for session, turns in order.items()
        }

    async def check(self, order: dict[str, list[str]]) -> None:
        """Each turn was taken once, on the whole state of the one before it, and answered in that order."""
        async for _ in self.left.results([turn for turns in order.values() for turn in turns], 90):
            pass
        for session, turns in order.items():
            versions = [await self.stores.sessions.get(self.tenant, session, number) for number in (1, 2)]
            latest = await self.stores.sessions.latest(self.tenant, session)
            assert latest == versions[1], f"{session}: a turn was taken twice"
            assert [version.turn for version in versions] == [(turn, 1) for turn in turns], session
            first, second = (messages_of(version.state) for version in versions)
            assert second[: len(first)] == first, f"{session}: turns are interleaved"
            asked = [message["content"] for message in second if message["type"] == "UserMessage"]
            assert asked == [f"This is {turn}." for turn in turns], session
            results = [await self.stores.results.get(self.tenant, turn) for turn in turns]
            assert results == [version.result for version in versions]
            ends = [result.timings.finished_at for result in results if result]
            assert ends == sorted(ends), session


async def race(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, *, rounds: int, each: int, wiped: Sequence[int]) -> None:
    """Race two turns of ``each`` sessions in each round; in the rounds ``wiped`` Redis is lost."""
    for name, value in SLOW.items():
        monkeypatch.setenv(name, value)
    settings: Settings = load()
    seed = int(os.environ.get("SLUICE_TEST_SEED", time.time_ns()))
    print(f"SLUICE_TEST_SEED={seed}")
    random.seed(seed)
    fleet.sweeper()
    intent = fleet.worker(keys.INTENT_POOL)
    workers = [fleet.worker(RESPONDER) for _ in range(2)]
    async with connect(settings) as stores:
        for number in range(rounds):
            tenant = f"race-{seed}-{number}"
            async with AsyncProducer(settings, tenant=tenant) as left, AsyncProducer(settings, tenant=tenant) as right:
                made = Race(tenant, left, right, stores, [f"s{index}" for index in range(each)])
                async with stopped(intent):
                    order = await made.start()
                await asyncio.sleep(random.uniform(0.2, 1.5))
                async with stopped(random.choice(workers)):
                    if number in wiped:
                        await asyncio.sleep(random.uniform(0, 1))
                        order = await made.wipe(order)
                    await asyncio.sleep(_LAPSED_SECONDS)
                await made.check(order)
    assert all(worker.poll() is None for worker in workers)


async def test_turns_that_race_are_each_taken_once_in_order(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        await race(fleet, monkeypatch, rounds=2, each=4, wiped=[1])
    except BaseException:
        print(fleet.logs()[-20_000:])
        raise


@pytest.mark.slow
async def test_two_hundred_races_and_redis_wiped_in_a_tenth_of_them(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        await race(fleet, monkeypatch, rounds=20, each=10, wiped=[4, 13])
    except BaseException:
        print(fleet.logs()[-20_000:])
        raise
