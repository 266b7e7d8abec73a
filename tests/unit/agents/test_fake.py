"""The fake keeps to the port."""

from __future__ import annotations

import pytest

from tasks.agents.fake import FakeRunner
from tasks.agents.types import AgentRunner, AgentTask
from tasks.errors import ModelError
from tasks.settings import AgentSettings


async def test_script_then_reply() -> None:
    runner = FakeRunner("last", script=[ModelError("x"), lambda task: task.text.upper()])
    port: AgentRunner = runner
    task = AgentTask(agent=AgentSettings(type="human_escalation"), text="hi")

    with pytest.raises(ModelError):
        await port.run(task)
    assert (await port.run(task)).output == "HI"
    answer = await port.run(task)
    await port.close()

    assert (answer.output, answer.escalated, runner.closed, len(runner.tasks)) == ("last", True, True, 3)
