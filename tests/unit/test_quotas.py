"""Doors hold tenants to their quotas, and slots go round whatever dies."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from handlers.door import Accepted
from tasks.access.quotas import exceeded, limits, spent
from tasks.contracts.result import AgentInfo, Usage
from tasks.errors import QuotaExceeded, SettingsError
from tasks.settings import Settings
from tasks.settings_load import parse
from tasks.stores.register import Limits, Opened
from tests.support import build
from tests.support.world import Died, Steps, World

QUOTAS = {
    "default": {"max_waiting": 2, "max_running": 1},
    "tenants": {"free": {}, "small": {"tokens_per_day": 100, "money_per_day": 0.5}},
    "prices": {"m1": {"input": 2.5, "output": 10}},
}


def configure(world: World, quotas: dict[str, Any] = QUOTAS) -> World:
    world.settings = parse(Settings, {"quotas": quotas})
    return world


def test_the_settings_become_limits() -> None:
    quotas = parse(Settings, {"quotas": QUOTAS}).quotas
    assert limits(quotas, "anybody") == Limits(most_open=3, slots=1)
    assert limits(quotas, "free") == Limits()
    assert limits(quotas, "small") == Limits(tokens=100, micros=500_000)


@pytest.mark.parametrize(
    ("quotas", "said"),
    [
        ({"default": {"max_running": 0}}, "quotas.default.max_running"),
        ({"default": {"max_runing": 1}}, "max_running"),
        ({"tenants": {"a": {"money_per_day": 1}}}, "quotas.prices"),
        ({"prices": {"m": {"input": -1, "output": 1}}}, "quotas.prices.m.input"),
    ],
)
def test_a_quota_that_means_nothing_is_an_error_at_start(quotas: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        parse(Settings, {"quotas": quotas})


def test_a_result_has_its_price() -> None:
    quotas = parse(Settings, {"quotas": QUOTAS}).quotas
    usage = Usage(input_tokens=1000, output_tokens=10)
    priced = build.result(agent=AgentInfo(type="responder", model="m1"), usage=usage)
    assert spent(quotas, priced).micros == 2600
    unpriced = build.result(agent=AgentInfo(type="responder", model="m2"), usage=usage)
    assert (spent(quotas, unpriced).micros, spent(quotas, unpriced).unpriced) == (0, 1)
    assert spent(quotas, build.result()).unpriced == 0
    assert spent(quotas, build.result()).day == "2030-01-01"


def test_a_budget_says_when_the_next_day_begins() -> None:
    now = datetime(2030, 1, 1, 23, 59, 0, tzinfo=UTC)
    error = exceeded(parse(Settings, {"quotas": QUOTAS}).quotas, "small", Opened.SPENT, now)
    assert error.retry_seconds == 61
    assert error.exit_code == 75


async def submit(world: World, *names: str, tenant: str = "default") -> list[Any]:
    requests = [build.request(f"Question {name}?", id=name, tenant=tenant) for name in names]
    return await world.door().accept(requests, caller=world.gate.caller())


async def test_a_door_refuses_what_is_too_much_and_says_so_once(world: World) -> None:
    configure(world)
    outcomes = await submit(world, *"abcdef")
    assert [type(outcome) for outcome in outcomes] == [Accepted] * 3 + [QuotaExceeded] * 3
    assert outcomes[-1].retry_seconds == 5
    assert "try again in 5 s" in str(outcomes[-1])
    assert len(world.broker.queues["requests"]) == 1
    assert (await world.actions(build.request(id="d")))["quota.exceeded"] == 1
    [record] = await world.records(build.request(id="d"))
    assert record.details["refused"] == 3
    again = await submit(world, "a")
    assert isinstance(again[0], Accepted), "the same request is the same request, whatever waits"


async def answer(world: World, passed: Steps | None = None) -> None:
    steps = passed or Steps()
    await world.deliver(world.route(), "requests")
    await world.deliver(world.work(passed=steps), "agents.responder")


async def test_the_end_of_one_publishes_the_next(world: World) -> None:
    configure(world)
    await submit(world, *"abc")
    for name in "abc":
        assert len(world.broker.queues["requests"]) == 1
        await answer(world)
        assert await world.result(build.request(id=name)) is not None
    assert await world.register.load("default") == {"open": 0, "admitted": 0, "throttled": 0}
    assert (await world.register.usage("default", "2030-01-01"))["requests"] == 3


async def test_where_the_finisher_dies_the_sweeper_gives_out_the_slot(world: World) -> None:
    configure(world)
    await submit(world, *"ab")
    with pytest.raises(Died):
        await answer(world, Steps("clear"))
    assert not world.broker.queues["requests"]
    await world.sweeper().run_once()
    assert len(world.broker.queues["requests"]) == 1
    await answer(world)
    assert await world.result(build.request(id="b")) is not None


async def test_what_a_door_accepted_and_did_not_record_is_recorded_before_it_is_published(world: World) -> None:
    configure(world)
    door = world.door()
    requests = [build.request(f"Question {name}?", id=name) for name in "ab"]
    _, admitted = await door.admit(requests, caller=world.gate.caller())
    await door.announce(admitted[:1], caller=world.gate.caller())
    await answer(world)
    assert not world.broker.queues["requests"]
    await world.sweep_until_published("requests")
    assert (await world.actions(requests[1]))["request.accepted"] == 1
    await answer(world)
    assert await world.result(requests[1]) is not None


async def test_a_request_past_its_deadline_ends_without_a_slot(world: World) -> None:
    configure(world)
    await submit(world, "a")
    asked = build.request("Question b?", id="b", deadline=world.clock().replace(hour=1))
    await world.door().accept([asked], caller=world.gate.caller())
    world.clock.advance(3700)
    await world.sweeper().run_once()
    result = await world.result(asked)
    assert result is not None
    assert result.status.value == "expired"
    assert (await world.register.load("default"))["throttled"] == 0


async def test_a_limit_that_was_lifted_lets_all_go(world: World) -> None:
    configure(world)
    await submit(world, *"abc")
    configure(world, {})
    await world.sweeper().run_once()
    assert len(world.broker.queues["requests"]) == 3
