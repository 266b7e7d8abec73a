"""Requests are cancelled while real workers are at them: the workers are free at once, and nothing is written twice."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from handlers.producer import AsyncProducer
from tasks import keys
from tasks.contracts.audit import Action
from tasks.contracts.result import Status
from tasks.settings import Settings
from tasks.settings_load import load
from tasks.stores.connect import connect
from tests.e2e.conftest import Fleet
from tests.e2e.test_command_line import sluice
from tests.support.evidence import Evidence, gather
from tests.support.model_api import ModelApi, model_api

SECONDS = 30.0
HEARTBEAT = 0.5
SLACK = 2.0
"""What a machine that does other things besides may take longer."""
RESPONDER = keys.agent_pool("responder")
PLANNER, EXECUTOR = keys.agent_pool("planner"), keys.agent_pool("executor")
PLAN = (
    "Do this: 1. Run SELECT COUNT(*) FROM customers 2. Name the capital of Peru. 3. Name the capital of Chile. "
    "4. Then say what the result means."
)
TENANT = "cancels"


@contextmanager
def slow_model(config: Path) -> Iterator[ModelApi]:
    """A model that takes half a minute, which the responder asks; one request at a time in a process."""
    with model_api() as api:
        api.seconds = SECONDS
        api.reply({"choices": [{"message": {"content": "At last."}, "finish_reason": "stop"}], "usage": {}})
        config.write_text(
            f"models: {{house: {{base_url: '{api.url}/v1'}}}}\n"
            "agents:\n"
            "  - {type: planner}\n"
            "  - {type: executor, tools: [sql_parser]}\n"
            "  - {type: responder, model: house, concurrency: 1}\n"
        )
        yield api


async def until(done: Callable[[], bool], seconds: float = 40.0) -> float:
    """Return the seconds until ``done``."""
    begun = time.monotonic()
    while not done():
        assert time.monotonic() - begun < seconds, "it took too long"
        await asyncio.sleep(0.01)
    return time.monotonic() - begun


async def empty(settings: Settings, refs: list[str]) -> None:
    async with connect(settings) as stores, asyncio.timeout(20):
        while any(await stores.register.are_open(refs)):
            await asyncio.sleep(0.05)


async def audited(settings: Settings, tenant: str, asked: str, action: Action, count: int = 1) -> Evidence:
    """Return the evidence once the audit has ``count`` records of ``action``."""
    async with asyncio.timeout(20):
        while True:
            evidence = await gather(settings, tenant)
            if evidence.actions(asked).count(action) >= count:
                return evidence
            await asyncio.sleep(0.2)


async def test_a_worker_whose_model_takes_half_a_minute_is_free_within_two_heartbeats(
    settings: Settings, fleet: Fleet, tmp_path: Path
) -> None:
    tenant = f"{TENANT}-{time.time_ns()}"
    with slow_model(tmp_path / "pipeline.yaml") as api:
        settings = load()
        fleet.worker(keys.INTENT_POOL)
        fleet.worker(RESPONDER)
        fleet.sweeper()
        async with AsyncProducer(settings, tenant=tenant) as producer:
            first = await producer.submit("Hello?", intent="answer_question")
            await until(lambda: len(api.sent) == 1)
            second = await producer.submit("And now?", intent="answer_question")
            cancelled = await producer.cancel(first)
            assert cancelled.status is Status.CANCELLED
            took = await until(lambda: len(api.sent) == 2)
            assert took < 2 * HEARTBEAT + SLACK, f"{took:.2f} s\n{fleet.logs()}"
            print(f"free after {took:.2f} s")
            assert (await producer.cancel(second)).status is Status.CANCELLED
            assert await producer.result(first, 5) == cancelled
        await audited(settings, tenant, second, Action.ATTEMPT_DISCARDED)
        evidence = await audited(settings, tenant, first, Action.ATTEMPT_DISCARDED)
        evidence.assert_whole([first, second], overridden=True)
        for asked in (first, second):
            found = [action for action in evidence.actions(asked) if action is not Action.AGENT_STARTED]
            assert sorted(found) == sorted(
                [
                    Action.REQUEST_ACCEPTED,
                    Action.INTENT_OVERRIDE,
                    Action.REQUEST_CANCELLED,
                    Action.RESULT_WRITTEN,
                    Action.ATTEMPT_DISCARDED,
                ]
            )
        async with connect(settings) as stores:
            assert await stores.register.counts() == {"leased": 0, "delayed": 0}
            assert await stores.link.call("HLEN", keys.unacked(RESPONDER)) == 0
    assert len(api.sent) == 2


async def test_a_plan_is_cancelled_in_the_middle_of_its_steps(settings: Settings, fleet: Fleet, tmp_path: Path) -> None:
    tenant = f"{TENANT}-{time.time_ns()}"
    with slow_model(tmp_path / "pipeline.yaml") as api:
        settings = load()
        fleet.start("worker", "--pool", keys.INTENT_POOL, "--pool", PLANNER, "--pool", EXECUTOR)
        fleet.worker(RESPONDER)
        fleet.sweeper()
        async with AsyncProducer(settings, tenant=tenant) as producer:
            asked = await producer.submit(PLAN, intent="plan_task")
            # One of the two that the responder does runs, the other one waits for its slot, the last one for both.
            await until(lambda: len(api.sent) == 1)
            async with connect(settings) as stores, asyncio.timeout(20):
                while await stores.results.get(tenant, asked, 1, "s1") is None:
                    await asyncio.sleep(0.05)
            cancelled = await producer.cancel(asked)
            begun = time.monotonic()
            assert cancelled.status is Status.CANCELLED
            assert [step.status for step in cancelled.steps] == [Status.SUCCEEDED, None, None, None]
            evidence = await audited(settings, tenant, asked, Action.ATTEMPT_DISCARDED)
            print(f"stopped and on record after {time.monotonic() - begun:.2f} s")
            other = await producer.submit("Hello?", intent="answer_question")
            took = await until(lambda: len(api.sent) == 2)
            assert took < 2 * HEARTBEAT + SLACK, f"{took:.2f} s\n{fleet.logs()}"
            await producer.cancel(other)
            assert await producer.result(asked, 5) == cancelled
        refs = [keys.ref(tenant, asked, 1, step) for step in (None, "s1", "s2", "s3", "s4")]
        await empty(settings, refs)
        evidence = await audited(settings, tenant, other, Action.ATTEMPT_DISCARDED)
        evidence.assert_whole([asked, other], overridden=True)
        actions = evidence.actions(asked)
        assert (actions.count(Action.ATTEMPT_DISCARDED), actions.count(Action.STEP_FINISHED)) == (1, 1)
        assert Action.MESSAGE_REPLAYED not in actions
        async with connect(settings) as stores:
            found = [key async for key in stores.data.list(f"steps/{tenant}/")]
            assert found == [keys.step_result(tenant, asked, 1, "s1")]
    # The step that waited was never begun: the second call was the other request's.
    assert "Hello?" in json.dumps(api.sent[1].body)


def test_the_command_line_cancels_what_it_submitted(settings: Settings) -> None:
    tenant = f"{TENANT}-{time.time_ns()}"
    waiting = sluice("submit", "Nobody serves this", "--tenant", tenant, "--wait", "--timeout", "0.2")
    assert waiting.returncode == 4
    [line] = [line for line in waiting.stderr.splitlines() if line.startswith("accepted: ")]
    asked = line.removeprefix("accepted: ")
    done = sluice("cancel", asked, "--tenant", tenant)
    assert (done.returncode, done.stdout) == (0, f"{asked}: cancelled by local\n")
    again = sluice("cancel", asked, "--tenant", tenant, "--json")
    assert (again.returncode, json.loads(again.stdout)["status"]) == (0, "cancelled")
    shown = sluice("result", asked, "--tenant", tenant, "--json")
    assert json.loads(shown.stdout) == json.loads(again.stdout)


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_the_command_line_says_why_it_cannot_cancel(settings: Settings, fleet: Fleet, as_json: list[str]) -> None:
    unknown = sluice("cancel", "never-submitted", *as_json)
    assert unknown.returncode == 1
    for pool in (keys.INTENT_POOL, RESPONDER):
        fleet.worker(pool)
    asked = f"done-{time.time_ns()}"
    assert sluice("submit", "What is a webhook?", "--id", asked, "--wait", "--timeout", "60").returncode == 0
    ended = sluice("cancel", asked, *as_json)
    assert ended.returncode == 2
    said = json.loads(ended.stdout)["error"]["message"] if as_json else ended.stderr
    assert "has ended as succeeded: there is nothing to cancel" in said
    assert sluice("cancel", "with space").returncode == 2
