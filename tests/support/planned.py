"""A world whose requests are planned: a plan of six steps, and workers of every pool that carry it out."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from tasks import keys
from tasks.agents.fake import FakePlanner, FakeRunner
from tasks.agents.types import AgentTask
from tasks.attempt import Disposition
from tasks.contracts.asked import Asked
from tasks.contracts.plan import Plan
from tasks.contracts.request import Request
from tasks.contracts.result import IntentInfo, Result
from tests.support import build
from tests.support.world import RESPONDER, Died, World

PLANNER = keys.agent_pool("planner")
EXECUTOR = keys.agent_pool("executor")
QUEUES = ("requests", PLANNER, EXECUTOR, RESPONDER, keys.agent_pool("human_escalation"))


def step(step_id: str, agent: str = "responder", *needs: str, **fields: Any) -> dict[str, Any]:
    return {"id": step_id, "agent": agent, "instruction": f"do {step_id}", "depends_on": list(needs), **fields}


SIX = (
    step("a"),
    step("b", "executor"),
    step("c"),
    step("d", "executor"),
    step("e", "responder", "a", "b"),
    step("f", "responder", "e"),
)


def draft(*steps: dict[str, Any]) -> str:
    return json.dumps({"steps": list(steps)})


def echo(task: AgentTask) -> str:
    """Answer with the step and what it was given."""
    return f"<{task.step or 'whole'}: {task.text}>"


async def to_plan(_asked: Asked) -> IntentInfo:
    """Take everything for a plan."""
    return build.intent("plan_task")


class Planned:
    """Delivers whatever waits, pool by pool, until nothing does."""

    def __init__(self, world: World, *steps: dict[str, Any], planner: FakePlanner | None = None) -> None:
        self.world = world
        self.planner = planner or FakePlanner(draft(*(steps or SIX)))
        self.runner = FakeRunner(echo)

    async def ask(self, text: str = "Do it all", **fields: Any) -> Request:
        """Let a request in and route it to the planner."""
        asked = await self.world.accept(text, **fields)
        await self.deliver("requests")
        return asked

    async def deliver(self, queue: str, passed: Callable[[str], None] = lambda _: None) -> Disposition:
        """Hand the next message of ``queue`` to a worker of its pool."""
        if queue == "requests":
            return await self.world.deliver(self.world.route(to_plan, passed=passed), queue)
        hop = self.world.work(self.runner, pool=queue, planner=self.planner, passed=passed)
        return await self.world.deliver(hop, queue)

    async def drain(self, queues: Sequence[str] = QUEUES, passed: Callable[[str], None] = lambda _: None) -> None:
        """Deliver until every queue is empty. Workers may die on the way."""
        while waiting := [queue for queue in queues if self.world.broker.queues[queue]]:
            try:
                await self.deliver(waiting[0], passed)
            except Died:
                return

    async def settle(self, passed: Callable[[str], None] = lambda _: None) -> None:
        """Drain, and let the sweeper mend, until the register is empty."""
        sweeper = self.world.sweeper()
        for _ in range(200):
            await self.drain(passed=passed)
            if not self.world.register.rows:
                return
            self.world.clock.advance(self.world.settings.leases.heartbeat_seconds)
            await sweeper.run_once()
        raise AssertionError(f"never settled: {self.world.register.rows}")

    async def plan(self, asked: Request) -> Plan | None:
        stored = await self.world.plans.get(asked.tenant, asked.id, 1)
        return stored.plan if stored else None

    async def step(self, asked: Request, step_id: str) -> Result | None:
        return await self.world.results.get(asked.tenant, asked.id, 1, step_id)

    async def result(self, asked: Request) -> Result:
        found = await self.world.result(asked)
        assert found is not None
        return found

    def done_by_steps(self) -> list[str]:
        """Return the steps that an agent has been asked to do, in order."""
        return [task.step for task in self.runner.tasks if task.step]
