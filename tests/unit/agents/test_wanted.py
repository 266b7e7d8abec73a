"""Once nobody wants the answer, no model is asked and no tool called, whatever still runs."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.agents.planner import TeamPlanner
from tasks.agents.tools.base import Tool, ToolArguments, ToolContext, ToolResult
from tasks.agents.types import AgentTask, ToolCall
from tasks.errors import RequestEnded
from tasks.settings import AgentSettings, MemberSettings, Settings, TeamSettings
from tests.support.replay import ReplayModels, runner, wants


class Nothing(ToolArguments):
    pass


class Look(Tool[Nothing]):
    """Counts its calls; after the first one nobody wants the answer any more."""

    name = "look"
    arguments = Nothing
    description = "Looks."  # type: ignore[assignment]

    def __init__(self, want: Want) -> None:
        self.calls = 0
        self._want = want

    async def call(self, arguments: Nothing, context: ToolContext) -> ToolResult:
        self.calls += 1
        self._want.ended = True
        return ToolResult()


class Want:
    """What an attempt is asked whether it goes on."""

    ended = False

    def __call__(self) -> None:
        if self.ended:
            raise RequestEnded("acme/a: has ended")


def task(want: Want, **fields: Any) -> AgentTask:
    settings = {"type": "responder", "tools": ("look",), **fields}
    return AgentTask(agent=AgentSettings(**settings), text="Look.", wanted=want)


async def test_no_model_is_asked_after_the_end() -> None:
    want = Want()
    tool, models = Look(want), ReplayModels(wants("look"), "It is there.")
    with pytest.raises(RequestEnded):
        await runner(Settings(), models, factories={"look": lambda _: tool}).run(task(want))
    assert (tool.calls, len(models.clients[0].create_calls)) == (1, 1)


async def test_no_tool_is_called_after_the_end() -> None:
    want, asked, calls = Want(), list[bool](), list[ToolCall]()
    tool = Look(want)

    def wanted() -> None:
        asked.append(True)
        want.ended = len(asked) > 1  # the model has been asked
        want()

    models = ReplayModels(wants("look"), "There.")
    looking = AgentTask(agent=task(want).agent, text="Look.", wanted=wanted, on_tool=calls.append)
    with pytest.raises(RequestEnded):
        await runner(Settings(), models, factories={"look": lambda _: tool}).run(looking)
    assert tool.calls == 0
    assert [call.code for call in calls] == ["request_ended"]


async def test_a_teams_next_member_is_not_asked_after_the_end() -> None:
    want = Want()
    tool, models = Look(want), ReplayModels(wants("look"), "It is there.")
    members = tuple(MemberSettings(name=name, instructions="Look.", tools=("look",)) for name in ("one", "two"))
    asked = task(want, tools=(), team=TeamSettings(shape="round_robin", members=members))
    with pytest.raises(RequestEnded):
        await runner(Settings(), models, factories={"look": lambda _: tool}).run(asked)
    assert tool.calls == 1
    assert sum(len(client.create_calls) for client in models.clients) == 1


async def test_no_plan_is_drafted_after_the_end() -> None:
    want = Want()
    want.ended = True
    models = ReplayModels("{}")
    with pytest.raises(RequestEnded):
        await TeamPlanner(models, runner(Settings(), models)).draft(task(want))  # type: ignore[arg-type]
    assert models.clients == []
