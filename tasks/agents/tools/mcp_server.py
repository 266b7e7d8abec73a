"""Tools of an MCP server, through AutoGen's own workbench: one connection for each server and process.

It is made when a request first needs it, and again after it broke. A server that is away costs its tools and no
others: an agent sees that they are not available.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from pydantic import ConfigDict

from tasks.access.cuts import whole_words
from tasks.agents.tools.base import Effect, Said, Tool, ToolArguments, ToolContext
from tasks.agents.tools.credentials import filled, strike, values
from tasks.errors import NotReady, SettingsError, ToolFailed, ToolUnavailable, ToolUncertain
from tasks.log import get_logger
from tasks.settings import McpServerSettings

if TYPE_CHECKING:
    from autogen_core.tools import ToolResult as WorkbenchResult
    from autogen_core.tools import ToolSchema
    from autogen_ext.tools.mcp import McpWorkbench, StdioServerParams, StreamableHttpServerParams

log = get_logger()

_TRY_AGAIN_SECONDS: Final = 15.0
"""How long a server that did not answer is left alone."""
_ALIVE_SECONDS: Final = 5.0
_GRACE_SECONDS: Final = 2.0
_MAX_ERROR: Final = 300


class McpArguments(ToolArguments):
    """Whatever the server's schema says: it checks them itself."""

    model_config = ConfigDict(frozen=True, extra="allow")


class McpServer:
    """The connection to the server ``name`` of the settings; secrets come from ``environ``.

    Raises:
        SettingsError: a variable that ``env`` or ``headers`` name is not set.
    """

    def __init__(self, name: str, settings: McpServerSettings, environ: Mapping[str, str]) -> None:
        self.name = name
        self.settings = settings
        self._given = {
            part: {key: filled(text, environ, where=f"tools.mcp.{name}.{part}.{key}") for key, text in of.items()}
            for part, of in (("env", settings.env), ("headers", settings.headers))
        }
        templates = (*settings.env.values(), *settings.headers.values())
        self._secrets = [secret for template in templates for secret in values(template, environ)]
        self._workbench: McpWorkbench | None = None
        self._schemas: dict[str, ToolSchema] = {}
        self._opening = asyncio.Lock()
        self._suspect = False
        self._away_until = 0.0
        self._why = ""

    def tool(self, spelt: str) -> McpTool:
        """Return the tool that agents know as ``spelt``: ``server__tool``."""
        return McpTool(self, spelt)

    async def schemas(self) -> Mapping[str, ToolSchema]:
        """Return what the server says of its tools, by their own names.

        Raises:
            ToolUnavailable: it does not answer, or did not a moment ago.
        """
        await self._workbench_now()
        return self._schemas

    async def call(self, tool: str, arguments: Mapping[str, Any], effect: Effect) -> str:
        """Call ``tool`` and return its text.

        Raises:
            ToolFailed: the server says so.
            ToolUnavailable: the server was not reached.
            ToolUncertain: it was, and did not answer.
        """
        workbench = await self._workbench_now()
        lost = ToolUnavailable if effect is not Effect.ONCE else ToolUncertain
        try:
            async with asyncio.timeout(self.settings.timeout_seconds):
                result = await workbench.call_tool(tool, arguments)
        except TimeoutError as error:
            self._suspect = True
            raise lost(f"{self.name} gave no answer within {self.settings.timeout_seconds:g} s") from error
        except Exception as error:
            self._suspect = True
            raise lost(self._told("did not answer", error)) from error
        text = strike(_text(result), self._secrets)
        if not result.is_error:
            return text
        # The workbench tells a tool's own error and a broken connection in the same way.
        self._suspect = True
        if not await self._is_alive(workbench):
            raise lost(f"{self.name} broke off: {text}")
        raise ToolFailed(text or f"{self.name} says that it failed")

    async def close(self) -> None:
        """End the connection, and the process of a command. Safe to call twice."""
        workbench, self._workbench = self._workbench, None
        if workbench is None:
            return
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_GRACE_SECONDS):
                await workbench.stop()

    async def _workbench_now(self) -> McpWorkbench:
        async with self._opening:
            if self._workbench is not None and self._suspect and not await self._is_alive(self._workbench):
                log.warning("MCP server is connected anew", server=self.name)
                await self.close()
            if self._workbench is None:
                await self._open()
            assert self._workbench is not None  # noqa: S101  _open raises where there is none
            return self._workbench

    async def _open(self) -> None:
        if time.monotonic() < self._away_until:
            raise ToolUnavailable(self._why)
        workbench = self._made()
        try:
            async with asyncio.timeout(self.settings.connect_seconds):
                await workbench.start()
                schemas = await workbench.list_tools()
        except Exception as error:
            self._away_until = time.monotonic() + _TRY_AGAIN_SECONDS
            self._why = self._told("cannot be reached", error)
            log.warning("MCP server cannot be reached", server=self.name, reason=self._why)
            self._workbench = workbench
            await self.close()
            raise ToolUnavailable(self._why) from error
        self._workbench, self._suspect = workbench, False
        self._schemas = {schema["name"]: schema for schema in schemas}

    async def _is_alive(self, workbench: McpWorkbench) -> bool:
        try:
            async with asyncio.timeout(_ALIVE_SECONDS):
                await workbench.list_tools()
        except Exception:  # noqa: BLE001  whatever it is, this connection is of no more use
            return False
        self._suspect = False
        return True

    def _made(self) -> McpWorkbench:
        try:
            # Seconds, mostly of imaging and HTTP servers that a client does not need: only who has a server pays.
            from autogen_ext.tools.mcp import McpWorkbench
        except ImportError as error:
            raise NotReady(f"tools.mcp.{self.name}: needs an MCP client: pip install 'sluice[mcp]'") from error
        return McpWorkbench(self._params())

    def _params(self) -> StdioServerParams | StreamableHttpServerParams:
        from autogen_ext.tools.mcp import StdioServerParams, StreamableHttpServerParams

        settings = self.settings
        if settings.url:
            return StreamableHttpServerParams(
                url=settings.url,
                headers=self._given["headers"] or None,
                timeout=settings.connect_seconds,
                sse_read_timeout=settings.timeout_seconds,
            )
        command, *arguments = settings.command
        return StdioServerParams(
            command=command,
            args=arguments,
            env=self._given["env"] or None,
            read_timeout_seconds=max(settings.timeout_seconds, settings.connect_seconds),
        )

    def _told(self, what: str, error: BaseException) -> str:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        said = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        return whole_words(strike(f"MCP server {self.name} {what}: {said}", self._secrets), _MAX_ERROR)


class McpTool(Tool[McpArguments]):
    """One tool of ``server``, known to agents, policies and the audit as ``spelt``."""

    arguments = McpArguments

    def __init__(self, server: McpServer, spelt: str) -> None:
        self.name = spelt
        self._server = server
        self._own = spelt.removeprefix(f"{server.name}__")
        settings = server.settings
        self.effect = (
            Effect.READ
            if self._own in settings.read_only
            else Effect.IDEMPOTENT
            if self._own in settings.idempotent
            else Effect.ONCE
        )
        self._say(f"Not available: MCP server {server.name} was not asked yet.", {"type": "object", "properties": {}})

    async def prepare(self) -> None:
        """Take over what the server says of the tool, or that it does not answer.

        Raises:
            SettingsError: the server has no such tool.
        """
        try:
            schemas = await self._server.schemas()
        except ToolUnavailable as error:
            self._say(f"Not available now: {error}", {"type": "object", "properties": {}})
            return
        schema = schemas.get(self._own)
        if schema is None:
            raise SettingsError(
                f"tools: {self.name}: MCP server {self._server.name} has no tool {self._own!r}; "
                f"it has {', '.join(schemas) or 'none'}"
            )
        self._say(schema.get("description", ""), dict(schema["parameters"]) if "parameters" in schema else {})

    async def call(self, arguments: McpArguments, context: ToolContext) -> Said:
        """Let the server do it; see :meth:`McpServer.call`."""
        return Said(text=await self._server.call(self._own, arguments.model_dump(mode="json"), self.effect))

    def _say(self, description: str, parameters: dict[str, Any]) -> None:
        if self.__dict__.get("schema", {}).get("description") != description:
            self.description = description
            self.__dict__["schema"] = {"name": self.name, "description": description, "parameters": parameters}


def _text(result: WorkbenchResult) -> str:
    return "\n".join(part.content if part.type == "TextResultContent" else f"<{part.type}>" for part in result.result)
