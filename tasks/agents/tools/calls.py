"""What stands around every tool call: budget, permission, typed arguments, the journal, one report."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Self

from pydantic import ValidationError

from tasks.agents.tools.base import Tool, ToolContext, readable
from tasks.agents.tools.once import Made, Once
from tasks.agents.types import AgentTask, ToolCall
from tasks.contracts.base import sha256
from tasks.contracts.journal import Scope, spelt
from tasks.contracts.strict import explain
from tasks.errors import (
    CallInDoubt,
    Denied,
    InvalidInput,
    LeaseLost,
    RequestEnded,
    SluiceError,
    StoreError,
    ToolError,
    ToolRefused,
)

logger = logging.getLogger(__name__)


class _Failed(Exception):
    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.text = f"Error: {text}"
        self.code = code


class Calls:
    """The tool calls of one attempt, of all members of a team: at most ``budget``, each reported to ``on_call``.

    ``wanted`` and ``permit`` are asked before each one, see :class:`tasks.agents.types.AgentTask`. ``once`` guards
    those that must not be repeated. ``context`` says for whom they are. Where the attempt has to end for a call,
    ``broken`` is set and ``fault`` says why; nothing is raised, because AutoGen waits for ever for a tool call that
    raises.
    """

    def __init__(
        self,
        *,
        budget: int,
        on_call: Callable[[ToolCall], None],
        permit: Callable[[str], Awaitable[None]] | None = None,
        wanted: Callable[[], None] = lambda: None,
        once: Once | None = None,
        context: ToolContext = ToolContext(),  # noqa: B008  frozen
    ) -> None:
        self._budget = budget
        self._on_call = on_call
        self._permit = permit
        self._wanted = wanted
        self._once = once or Once(None, Scope("", ""))
        self._context = context
        self.running: set[asyncio.Future[tuple[str, bool]]] = set()
        self.broken = asyncio.Event()
        self.fault: SluiceError | None = None

    @classmethod
    def of(cls, task: AgentTask, context: ToolContext, on_call: Callable[[ToolCall], None]) -> Self:
        """Return those of one attempt at ``task``."""
        return cls(
            budget=task.agent.max_tool_calls,
            on_call=on_call,
            permit=task.permit,
            wanted=task.wanted,
            once=Once(task.journal, task.scope),
            context=context,
        )

    def start(self, tools: Mapping[str, Tool[Any]], name: str, arguments: object) -> asyncio.Future[tuple[str, bool]]:
        """Begin to call ``name``, one of ``tools``. What comes is the text to read, and whether it succeeded."""
        # A task of its own: AutoGen runs tool calls in a task that nobody cancels.
        work = asyncio.ensure_future(self._reported(tools, name, arguments))
        self.running.add(work)
        work.add_done_callback(self.running.discard)
        return work

    async def _reported(self, tools: Mapping[str, Tool[Any]], name: str, arguments: object) -> tuple[str, bool]:
        started = time.perf_counter()
        made, code = Made("Error: cancelled before it was finished"), "cancelled"
        try:
            made, code = await self._attempt(tools, name, arguments), ""
        except _Failed as failed:
            made, code = Made(failed.text), failed.code
        finally:
            # Also when cancelled: what was begun may have had its effect, so it is on record.
            given = dict(arguments) if isinstance(arguments, Mapping) else {"arguments": arguments}
            elapsed = (time.perf_counter() - started) * 1000
            error = made.text if code else ""
            self._on_call(ToolCall(name, given, not code, error, elapsed, code=code, replayed=made.replayed))
        return made.text, not code

    async def _attempt(self, tools: Mapping[str, Tool[Any]], name: str, arguments: object) -> Made:
        self._budget -= 1
        if self._budget < 0:
            raise _Failed("no tool calls are left for this request; answer with what you have", "tool_budget")
        tool = tools.get(name)
        if tool is None:
            raise _Failed(f"there is no tool {name!r}; there are {', '.join(tools)}", "no_such_tool")
        try:
            await self._check(name)
            return await self._made(tool, arguments)
        except ValidationError as error:
            raise _Failed(explain(error), InvalidInput.code) from error
        except ToolError as error:
            raise _Failed(str(error), error.code) from error
        except (CallInDoubt, LeaseLost, RequestEnded, StoreError) as error:
            self.fault = self.fault or error
            self.broken.set()
            raise _Failed(f"the tool {name} was not called", error.code) from error
        except Exception as error:  # a tool's bug is this call's failure, not the request's
            logger.exception("tool %s failed", name)
            raise _Failed(f"the tool {name} failed unexpectedly", "internal") from error

    async def _made(self, tool: Tool[Any], arguments: object) -> Made:
        given = tool.arguments.model_validate(arguments or {})
        digest = sha256(spelt(given.model_dump(mode="json")))

        async def make(key: str) -> str:
            return readable(await tool.call(given, replace(self._context, idempotency_key=key)))

        return await self._once.call(tool.name, digest, tool.effect_of(given), make)

    async def _check(self, name: str) -> None:
        self._wanted()
        try:
            if self._permit is not None:
                await self._permit(name)
        except Denied as error:
            # Without the reason: who asked, and with which roles, is nothing for a model.
            raise ToolRefused(f"whoever asked may not use the tool {name}; answer without it") from error
