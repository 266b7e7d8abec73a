"""Teams, and the limits of an attempt, on real AutoGen and models that say what a test tells them to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import cached_property
from typing import Any

import pytest
from autogen_core import FunctionCall
from autogen_core.models import CreateResult, LLMMessage, RequestUsage, UserMessage

from tasks.agents.models.base import ModelClient
from tasks.agents.models.registry import Resolved
from tasks.agents.team import TeamRunner
from tasks.agents.tools.base import Tool, ToolArguments, ToolContext, ToolResult
from tasks.agents.tools.registry import ToolRegistry
from tasks.agents.types import AgentAnswer, AgentTask
from tasks.errors import InvalidInput, LimitExceeded, ModelError, ModelRefused
from tasks.settings import AgentSettings, MemberSettings, ModelSettings, Settings, TeamSettings, ToolSettings

Say = Callable[[Sequence[LLMMessage]], Any]


class Replay(ModelClient):
    """Says what ``say`` says of the messages: a text, function calls, or an exception. Each call takes ten tokens."""

    def __init__(self, say: Say) -> None:
        super().__init__(8192)
        self._say = say

    async def create(self, messages: Sequence[LLMMessage], **_: Any) -> CreateResult:
        said = self._say(messages)
        if asyncio.iscoroutine(said):
            said = await said
        if isinstance(said, Exception):
            raise said
        finish = "stop" if isinstance(said, str) else "function_calls"
        return CreateResult(finish_reason=finish, content=said, usage=RequestUsage(7, 3), cached=False)  # type: ignore[arg-type]


class Models:
    """Stands in for the registry: models by name."""

    def __init__(self, **models: Say) -> None:
        self._models = models
        self.open = 0

    @contextlib.asynccontextmanager
    async def using(self, name: str | None, **_: object) -> AsyncIterator[tuple[ModelClient, str]]:
        self.open += 1
        try:
            yield Replay(self._models[name or "house"]), name or "house"
        finally:
            self.open -= 1

    def resolve(self, name: str | None) -> Resolved:
        return Resolved(name or "house", "m", ModelSettings())

    async def close(self) -> None:
        pass


class Asked(ToolArguments):
    what: str = ""


class Answered(ToolResult):
    answer: str


class Look(Tool[Asked]):
    name = "look"
    arguments = Asked

    @cached_property
    def description(self) -> str:
        return "Looks."

    async def call(self, arguments: Asked, context: ToolContext) -> Answered:
        return Answered(answer=arguments.what)


def look(*whats: str) -> list[FunctionCall]:
    return [FunctionCall(id=what, name="look", arguments=json.dumps({"what": what})) for what in whats]


def runner(**models: Say) -> TeamRunner:
    tools = ToolRegistry(ToolSettings(), {"look": lambda _: Look()})
    return TeamRunner(Settings(), models=Models(**models), tools=tools)  # type: ignore[arg-type]


def member(name: str, **fields: Any) -> MemberSettings:
    return MemberSettings(name=name, instructions=f"You are the {name}.", **fields)


def crew(shape: str = "round_robin", until: str = "", **fields: Any) -> AgentSettings:
    members = (member("writer", model="writer"), member("critic", model="critic"))
    team = TeamSettings(shape=shape, members=members, until=until)  # type: ignore[arg-type]
    return AgentSettings(type="crew", team=team, **fields)


async def ask(made: TeamRunner, agent: AgentSettings, text: str = "Write.", **fields: Any) -> AgentAnswer:
    return await made.run(AgentTask(agent=agent, text=text, **fields))


# Teams ----------------------------------------------------------------------------------------


async def test_members_speak_in_turn_and_the_last_word_is_the_answer() -> None:
    heard: list[str] = []

    def critic(messages: Sequence[LLMMessage]) -> str:
        heard.extend(str(message.content) for message in messages)
        return "A better draft."

    answer = await ask(runner(writer=lambda _: "A draft.", critic=critic), crew())

    assert (answer.output, answer.model) == ("A better draft.", "writer + critic")
    assert answer.usage.input_tokens == 14
    assert heard == ["You are the critic.", "Write.", "A draft."]


async def test_a_critic_ends_the_talk_and_the_draft_is_the_answer() -> None:
    drafts, verdicts = iter(["First.", "Second."]), iter(["Longer!", "APPROVED"])
    made = runner(writer=lambda _: next(drafts), critic=lambda _: next(verdicts))
    # The word in the request ends nothing.
    answer = await ask(made, crew(until="APPROVED"), "Write until APPROVED.")
    assert answer.output == "Second."


async def test_the_types_model_chooses_who_speaks() -> None:
    chosen = iter(["critic", "writer"])
    made = runner(house=lambda _: next(chosen), critic=lambda _: "Begin.", writer=lambda _: "The end. DONE")
    answer = await ask(made, crew("selector", until="DONE"))
    assert (answer.output, answer.usage.input_tokens) == ("The end.", 21)  # of two, only the first is chosen


async def test_a_members_tools_are_its_own_and_are_reported() -> None:
    replies = iter([look("x"), "Looked."])
    agent = crew()
    assert agent.team
    members = (member("writer", model="writer", tools=("look",)), agent.team.members[1])
    agent = agent.changed(team=agent.team.changed(members=members))
    answer = await ask(runner(writer=lambda _: next(replies), critic=lambda _: "Good."), agent)
    assert [(step.name, step.ok) for step in answer.steps] == [("look", True)]


async def test_a_session_keeps_what_was_asked_and_answered_whoever_goes_on() -> None:
    heard: list[list[str]] = []

    def writer(messages: Sequence[LLMMessage]) -> str:
        heard.append([str(message.content) for message in messages if isinstance(message, UserMessage)])
        return f"Draft {len(heard)}."

    made = runner(writer=writer, critic=lambda _: "Fine.", house=lambda messages: f"{len(messages)} messages.")
    first = await ask(made, crew(), "One.")
    state = json.loads(json.dumps(first.session_state))
    second = await ask(made, crew(), "Two.", session_state=state)
    alone = await ask(made, AgentSettings(type="responder"), "Three.", session_state=second.session_state)

    assert heard == [["One."], ["One.", "Two."]]
    assert alone.output == "6 messages."  # the system's, two turns, the question
    with pytest.raises(InvalidInput, match="session_state"):
        await ask(made, crew(), session_state={"llm_context": {"messages": [{"type": "UserMessage"}]}})


@pytest.mark.parametrize("error", [ModelRefused("no key"), ModelError("down")])
async def test_a_members_error_is_the_teams(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        await ask(runner(writer=lambda _: error, critic=lambda _: "Never."), crew())


async def test_a_team_that_hangs_ends_at_its_deadline_and_leaves_nothing_behind() -> None:
    models = Models(writer=lambda _: asyncio.sleep(60), critic=lambda _: "Never.")
    made = TeamRunner(Settings(), models=models)  # type: ignore[arg-type]
    before, begun = asyncio.all_tasks(), time.monotonic()

    with pytest.raises(ModelError, match="deadline"):
        await ask(made, crew(deadline_seconds=0.1))

    assert time.monotonic() - begun < 3
    await asyncio.sleep(0.05)
    assert asyncio.all_tasks() == before
    assert models.open == 0


# Limits ---------------------------------------------------------------------------------------

SINGLE = AgentSettings(type="looker", tools=("look",), max_tool_calls=2)


async def test_all_tool_calls_may_be_used_for_an_answer() -> None:
    replies = iter([look("a"), look("b"), "Both."])
    answer = await ask(runner(house=lambda _: next(replies)), SINGLE)
    assert (answer.output, answer.usage.tool_calls) == ("Both.", 2)


@pytest.mark.parametrize("replies", [[look("a"), look("b"), look("c")], [look("a", "b", "c")]])
async def test_one_tool_call_too_many_ends_it(replies: list[list[FunctionCall]]) -> None:
    said = iter(replies)
    with pytest.raises(LimitExceeded, match="agent looker exceeds max_tool_calls=2: the model wants 3"):
        await ask(runner(house=lambda _: next(said)), SINGLE)


async def test_turns_are_counted_for_all_members() -> None:
    agent = crew(until="DONE", max_turns=5)
    with pytest.raises(LimitExceeded, match="max_turns=5: no answer after 5 calls"):
        await ask(runner(writer=lambda _: "More.", critic=lambda _: "And more."), agent)


async def test_no_call_is_made_when_the_tokens_are_used_up_but_an_answer_is_kept() -> None:
    agent = SINGLE.changed(max_total_tokens=10)
    with pytest.raises(LimitExceeded, match="max_total_tokens=10: 10 of 10 tokens are used"):
        await ask(runner(house=lambda _: look("a")), agent)
    answer = await ask(runner(house=lambda _: "Straight."), agent.changed(max_total_tokens=5))
    assert answer.output == "Straight."
