"""Calls that must not be repeated, through the real runner and hop 2, with a receiver that honours the key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tasks import keys
from tasks.attempt import Disposition
from tasks.contracts.request import Request
from tasks.errors import ModelError
from tasks.settings import AgentSettings, ApiToolSettings, Settings, ToolSettings
from tests.support.receiver import Receiver, receiving
from tests.support.replay import ReplayModels, runner, wants
from tests.support.world import Died, World

EXECUTOR = keys.agent_pool("executor")
HUMAN = keys.agent_pool("human_escalation")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def settings(receiver: Receiver) -> Settings:
    api = ApiToolSettings(
        allowed_hosts=(f"127.0.0.1:{receiver.port}",), allowed_methods=("POST", "PUT"), timeout_seconds=5
    )
    executor = AgentSettings(type="executor", tools=("api_caller",), fallback="human_escalation")
    return Settings(agents=(executor,), tools=ToolSettings(api_caller=api))


async def accepted(world: World) -> Request:
    asked = await world.accept(intent="call_api")
    await world.deliver(world.route(), "requests")
    return asked


class Dying:
    """A runner that does its work, and then the process is killed, or the model fails."""

    def __init__(self, inner: Any, *ends: BaseException) -> None:
        self._inner = inner
        self._ends = list(ends)

    async def run(self, task: Any) -> Any:
        answer = await self._inner.run(task)
        if self._ends:
            raise self._ends.pop(0)
        return answer

    async def close(self) -> None:
        return


def models(receiver: Receiver, path: str = "/pay", method: str = "POST") -> ReplayModels:
    return ReplayModels(
        wants("api_caller", url=f"{receiver.url}{path}", method=method, body={"amount": 5}), "paid", "paid"
    )


async def test_an_attempt_that_dies_after_its_call_is_repeated_without_it(
    world: World, receiver: Receiver, settings: Settings
) -> None:
    world.settings = settings
    asked = await accepted(world)
    said = models(receiver)
    dying = Dying(runner(settings, said), ModelError("away"), Died("killed"))
    await world.deliver(world.work(dying, pool=EXECUTOR), EXECUTOR)
    await world.sweep_until_published(EXECUTOR)
    with pytest.raises(Died):
        await world.deliver(world.work(dying, pool=EXECUTOR), EXECUTOR)
    await world.sweep_until_published(EXECUTOR)
    await world.deliver(world.work(dying, pool=EXECUTOR), EXECUTOR)
    result = await world.result(asked)
    assert result is not None
    assert (result.status, result.output) == ("succeeded", "paid")
    assert receiver.done == [{"amount": 5}]
    assert [set(text) for text in said.read] == [set(said.read[0])] * 3
    [key] = receiver.seen
    assert (len(key), receiver.seen[key]) == (64, 1)
    calls = [record for record in await world.records(asked) if record.action == "tool.called"]
    # The record of the killed attempt died with it.
    assert [record.details["replayed"] for record in calls] == [False, True]


async def test_a_call_without_an_answer_is_not_repeated_and_the_step_falls_back(
    world: World, receiver: Receiver, settings: Settings
) -> None:
    """The receiver carried it out and hung up; then the attempt died. Nobody knows, so nobody tries again."""
    world.settings = settings
    asked = await accepted(world)
    said = models(receiver, "/drop")
    dying = Dying(runner(settings, said), ModelError("away"))
    await world.deliver(world.work(dying, pool=EXECUTOR), EXECUTOR)
    assert "RemoteProtocolError" in said.read[0]
    await world.sweep_until_published(EXECUTOR)
    assert await world.deliver(world.work(dying, pool=EXECUTOR), EXECUTOR) is Disposition.ACK
    assert len(receiver.done) == 1
    assert len(world.broker.queues[HUMAN]) == 1
    fallen = [record.reason for record in await world.records(asked) if record.action == "agent.fallback"]
    assert len(fallen) == 1
    assert fallen[0].startswith("call_in_doubt: api_caller: a call that must not be repeated was begun")


async def test_what_is_idempotent_is_repeated_under_the_same_key(
    world: World, receiver: Receiver, settings: Settings
) -> None:
    """The receiver honours the key, so it is carried out once however often it is sent."""
    world.settings = settings
    asked = await accepted(world)
    said = models(receiver, "/drop", "PUT")
    dying = Dying(runner(settings, said), ModelError("away"))
    await world.deliver(world.work(dying, pool=EXECUTOR), EXECUTOR)
    await world.sweep_until_published(EXECUTOR)
    await world.deliver(world.work(dying, pool=EXECUTOR), EXECUTOR)
    assert (await world.result(asked)) is not None
    [key] = receiver.seen
    assert receiver.seen[key] > 1
    assert receiver.done == [{"amount": 5}]


async def test_a_journal_that_is_away_ends_the_attempt_and_nothing_is_called(
    world: World, receiver: Receiver, settings: Settings
) -> None:
    from tasks.errors import StoreError

    world.settings = settings
    asked = await accepted(world)
    world.data.fail = StoreError("away")
    await world.deliver(world.work(runner(settings, models(receiver)), pool=EXECUTOR), EXECUTOR)
    world.data.fail = None
    assert not receiver.seen
    failed = [record.reason for record in await world.records(asked) if record.action == "attempt.failed"]
    assert failed == ["store: away"]
