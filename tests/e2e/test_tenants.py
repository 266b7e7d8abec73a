"""A tenant with a great backlog does not hold up another."""

from __future__ import annotations

import time

import pytest

from handlers.producer import AsyncProducer
from tasks import keys
from tasks.settings import Settings
from tasks.settings_load import load
from tests.e2e.conftest import Fleet

RESPONDER = keys.agent_pool("responder")
SLOTS = 2


def percentile(values: list[float], share: int) -> float:
    return sorted(values)[max(len(values) * share // 100 - 1, 0)]


async def latencies(producer: AsyncProducer, count: int, label: str) -> list[float]:
    """Ask one after the other; return the seconds from acceptance to the end."""
    seconds = []
    for number in range(count):
        asked = await producer.submit(f"What is a queue, {label} {number}?")
        result = await producer.result(asked, 60)
        seconds.append(result.timings.latency_seconds)
    return seconds


@pytest.mark.parametrize(("backlog", "asked"), [(500, 20), pytest.param(10_000, 100, marks=pytest.mark.slow)])
async def test_a_backlog_of_another_tenant_holds_up_nobody(
    settings: Settings, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, backlog: int, asked: int
) -> None:
    monkeypatch.setenv("SLUICE_QUOTAS__DEFAULT__MAX_RUNNING", str(SLOTS))
    settings = load()
    stamp = time.time_ns()
    fleet.worker(keys.INTENT_POOL)
    fleet.worker(RESPONDER)
    fleet.sweeper()
    async with AsyncProducer(settings, tenant=f"a{stamp}") as busy, AsyncProducer(settings, tenant=f"b{stamp}") as calm:
        await latencies(calm, 10, "warm")
        alone = percentile(await latencies(calm, asked, "alone"), 99)
        await busy.submit_many([f"What is a topic, number {number}?" for number in range(backlog)])
        before = await busy._stores.register.load(f"a{stamp}")
        beside = percentile(await latencies(calm, asked, "beside"), 99)
        left = await busy._stores.register.load(f"a{stamp}")
    # Times are for whoever measures: other programs use this machine too.
    print({"alone": alone, "beside": beside, "before": before, "left": left})
    assert left["open"] > backlog / 10, "whoever came later waited for the backlog"
    assert left["admitted"] <= SLOTS
