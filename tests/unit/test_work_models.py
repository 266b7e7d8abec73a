"""Hop 2 and its models: an endpoint that is left alone, and an agent that exceeds its limits."""

from __future__ import annotations

import pytest

from tasks.agents.fake import FakeRunner
from tasks.contracts.result import Status
from tasks.errors import LimitExceeded, ModelUnavailable
from tests.support.world import HUMAN, RESPONDER, World


@pytest.mark.parametrize(("asked_for", "pause"), [(45.0, 45.0), (0.5, 2.0)])
async def test_an_attempt_is_repeated_when_the_endpoint_may_be_asked_again(
    world: World, asked_for: float, pause: float
) -> None:
    asked = await world.routed()
    runner = FakeRunner("done", script=[ModelUnavailable("left alone", retry_seconds=asked_for)])
    await world.deliver(world.work(runner), RESPONDER)
    row = await world.register.get(f"default/{asked.id}")

    assert row
    assert (row.state, row.due - world.clock.seconds) == ("delayed", pause)
    await world.sweep_until_published(RESPONDER)
    await world.deliver(world.work(runner), RESPONDER)
    result = await world.result(asked)
    assert result
    assert result.status is Status.SUCCEEDED


async def test_an_exceeded_limit_goes_to_a_person_at_once(world: World) -> None:
    asked = await world.routed()
    runner = FakeRunner(LimitExceeded("agent responder exceeds max_turns=12"))
    await world.deliver(world.work(runner), RESPONDER)
    await world.deliver(world.work(FakeRunner("Please call her."), pool=HUMAN), HUMAN)

    result = await world.result(asked)
    assert result
    assert (result.status, len(runner.tasks)) == (Status.ESCALATED, 1)
    fallen = next(record for record in await world.records(asked) if record.action == "agent.fallback")
    assert fallen.reason == "limit_exceeded: agent responder exceeds max_turns=12"
