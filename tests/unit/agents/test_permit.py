"""A tool that the caller may not use is not called, and the agent reads why."""

from typing import Any

from tasks.agents.tools.base import Tool, ToolArguments, ToolContext, ToolResult
from tasks.agents.tools.bench import Bench
from tasks.agents.tools.calls import Calls
from tasks.agents.types import ToolCall
from tasks.errors import Denied


class Nothing(ToolArguments):
    pass


class Counted(Tool[Nothing]):
    name = "counted"
    arguments = Nothing
    description = "Counts."  # type: ignore[assignment]

    def __init__(self) -> None:
        self.calls = 0

    async def call(self, arguments: Nothing, context: ToolContext) -> ToolResult:
        self.calls += 1
        return ToolResult()


async def test_a_denied_tool_is_not_called_and_says_so_without_the_reason() -> None:
    tool, calls = Counted(), list[ToolCall]()
    asked: list[str] = []

    async def permit(name: str) -> None:
        asked.append(name)
        if len(asked) > 1:
            raise Denied("alice (user) may not")

    bench = Bench([tool], Calls(budget=5, on_call=calls.append, permit=permit))
    answers: list[Any] = [await bench.call_tool("counted"), await bench.call_tool("counted")]
    assert (tool.calls, asked) == (1, ["counted", "counted"])
    assert [answer.is_error for answer in answers] == [False, True]
    assert [call.ok for call in calls] == [True, False]
    assert "may not use the tool counted" in answers[1].to_text()
    assert "alice" not in answers[1].to_text()
