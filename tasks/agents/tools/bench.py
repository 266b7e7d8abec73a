"""An agent's tools as an AutoGen workbench: one for each request."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

from autogen_core import CancellationToken
from autogen_core.tools import TextResultContent, ToolSchema, Workbench
from autogen_core.tools import ToolResult as WorkbenchResult
from pydantic import BaseModel, ValidationError

from tasks.agents.tools.base import Tool, readable
from tasks.agents.types import ToolCall
from tasks.contracts.strict import explain
from tasks.errors import Denied, ToolError

logger = logging.getLogger(__name__)


class Bench(Workbench):
    """Calls tools for an agent, at most ``budget`` times, and reports each finished call to ``on_call``.

    ``permit`` is asked before each one, see :class:`tasks.agents.types.AgentTask`.

    AutoGen's own static workbench builds every tool's schema anew for each turn and each call, knows no
    budget and logs all arguments; this one does none of that. It never raises: an agent reads what went
    wrong.
    """

    component_type = "workbench"

    def __init__(
        self,
        tools: Sequence[Tool[Any]],
        *,
        budget: int,
        on_call: Callable[[ToolCall], None],
        permit: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._schemas: list[ToolSchema] = [cast("ToolSchema", tool.schema) for tool in tools]
        self._budget = budget
        self._on_call = on_call
        self._permit = permit
        self.running: set[asyncio.Future[tuple[str, bool]]] = set()

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
        # A task of its own: AutoGen runs tool calls in a task that nobody cancels.
        work = asyncio.ensure_future(self._reported(name, arguments))
        self.running.add(work)
        work.add_done_callback(self.running.discard)
        if cancellation_token is not None:
            cancellation_token.link_future(work)
        text, ok = await work
        return WorkbenchResult(name=name, result=[TextResultContent(content=text)], is_error=not ok)

    async def _reported(self, name: str, arguments: object) -> tuple[str, bool]:
        started = time.perf_counter()
        text, ok = "Error: cancelled before it was finished", False
        try:
            text, ok = await self._attempt(name, arguments)
        finally:
            # Also when cancelled: what was begun may have had its effect, so it is on record.
            given = dict(arguments) if isinstance(arguments, Mapping) else {"arguments": arguments}
            elapsed = (time.perf_counter() - started) * 1000
            self._on_call(ToolCall(name, given, ok, "" if ok else text, elapsed))
        return text, ok

    async def _attempt(self, name: str, arguments: object) -> tuple[str, bool]:
        self._budget -= 1
        if self._budget < 0:
            return "Error: no tool calls are left for this request; answer with what you have", False
        tool = self._tools.get(name)
        if tool is None:
            return f"Error: there is no tool {name!r}; there are {', '.join(self._tools)}", False
        try:
            await self._check(name)
            return readable(await tool.call(tool.arguments.model_validate(arguments or {}))), True
        except ValidationError as error:
            return f"Error: {explain(error)}", False
        except ToolError as error:
            return f"Error: {error}", False
        except Exception:  # a tool's bug is this call's failure, not the request's
            logger.exception("tool %s failed", name)
            return f"Error: the tool {name} failed unexpectedly", False

    async def _check(self, name: str) -> None:
        try:
            if self._permit is not None:
                await self._permit(name)
        except Denied as error:
            # Without the reason: who asked, and with which roles, is nothing for a model.
            raise ToolError(f"whoever asked may not use the tool {name}; answer without it") from error

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
        raise NotImplementedError("a bench belongs to one request")
