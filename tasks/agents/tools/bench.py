"""The tools of one agent as an AutoGen workbench."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from autogen_core import CancellationToken
from autogen_core.tools import TextResultContent, ToolSchema, Workbench
from autogen_core.tools import ToolResult as WorkbenchResult
from pydantic import BaseModel

from tasks.agents.tools.base import Tool
from tasks.agents.tools.calls import Calls


class Bench(Workbench):
    """What one agent of an attempt may call. Members of a team have a bench each, and share ``calls``.

    AutoGen's own static workbench builds every tool's schema anew for each turn and each call, knows no
    budget and logs all arguments; this one does none of that. It never raises: an agent reads what went
    wrong.
    """

    component_type = "workbench"

    def __init__(self, tools: Sequence[Tool[Any]], calls: Calls) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._schemas: list[ToolSchema] = [cast("ToolSchema", tool.schema) for tool in tools]
        self._calls = calls

    async def list_tools(self) -> list[ToolSchema]:
        """Return the schemas: the same objects each time."""
        return self._schemas

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
        call_id: str | None = None,
    ) -> WorkbenchResult:
        """Call ``name``. A failure is a result with ``is_error``."""
        work = self._calls.start(self._tools, name, arguments)
        if cancellation_token is not None:
            cancellation_token.link_future(work)
        text, ok = await work
        return WorkbenchResult(name=name, result=[TextResultContent(content=text)], is_error=not ok)

    async def start(self) -> None:
        """Do nothing: the tools need no start."""

    async def stop(self) -> None:
        """Do nothing."""

    async def reset(self) -> None:
        """Do nothing."""

    async def save_state(self) -> Mapping[str, Any]:
        """Return nothing: tools keep no state."""
        return {}

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""

    def _to_config(self) -> BaseModel:
        raise NotImplementedError("a bench belongs to one attempt")
