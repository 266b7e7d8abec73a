"""Which tools there are, by the name that an agent's settings use."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Final

from tasks.agents.tools.attachments import AttachmentStore, ReadAttachment
from tasks.agents.tools.base import Tool, ToolContext
from tasks.agents.types import AgentTask
from tasks.errors import SettingsError
from tasks.settings import AgentSettings, ToolSettings
from tasks.settings.tools import BUILT_IN_TOOLS, TOOL_ENTRY_POINTS
from tasks.stores.objects import MemoryObjectStore, ObjectStore

if TYPE_CHECKING:
    from tasks.agents.tools.mcp_server import McpServer

Factory = Callable[[ToolSettings], Tool[Any]]
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""What model endpoints take for the name of a function."""


class ToolRegistry:
    """Makes each tool once, on first use. ``factories`` adds to or replaces what there is.

    ``data`` is where attachments lie, ``environ`` where secrets are taken from.
    """

    def __init__(
        self,
        settings: ToolSettings,
        factories: dict[str, Factory] | None = None,
        *,
        data: ObjectStore | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self._environ = os.environ if environ is None else environ
        self._factories = {"sql_parser": self._sql_parser, "api_caller": self._api_caller, **(factories or {})}
        self._attachments = AttachmentStore(data or MemoryObjectStore(), settings.attachments)
        self._made: dict[str, Tool[Any]] = {}
        self._servers: dict[str, McpServer] = {}

    def check(self, agent: AgentSettings) -> None:
        """Raise :class:`SettingsError` where ``agent`` names a tool that does not exist or cannot be set up."""
        unknown = [name for name in agent.all_tools if not self._is_known(name)]
        if unknown:
            known = sorted({*BUILT_IN_TOOLS, *self._factories, *entry_points(group=TOOL_ENTRY_POINTS).names})
            raise SettingsError(
                f"agents.{agent.type}.tools: there is no tool {', '.join(map(repr, unknown))}; "
                f"known tools: {', '.join(known)}"
            )
        for name in agent.all_tools:
            if name != ReadAttachment.name:
                self._tool(name)

    def _is_known(self, name: str) -> bool:
        return name in self._factories or self._settings.knows(name) or _entry_point(name) is not None

    async def ready(self, names: Sequence[str], task: AgentTask) -> tuple[Tool[Any], ...]:
        """Return the tools ``names`` for ``task``, in this order, each once, ready to be called.

        Raises:
            SettingsError: a tool does not exist, or is not configured.
        """
        tools = []
        for name in dict.fromkeys(names):
            if name != ReadAttachment.name:
                tools.append(self._tool(name))
            elif task.attachments:
                tools.append(ReadAttachment(task.attachments))
        for tool in tools:
            await tool.prepare()
        return tuple(tools)

    def context(self, task: AgentTask) -> ToolContext:
        """Return for whom the calls of ``task`` are."""
        read = partial(self._attachments.read, task.tenant, task.attachments)
        return ToolContext(task.tenant, task.request_id, attachments=task.attachments, attachment=read)

    async def close(self) -> None:
        """Let go of the running loop's connections."""
        await asyncio.gather(*(server.close() for server in self._servers.values()))

    def _tool(self, name: str) -> Tool[Any]:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> Tool[Any]:
        if name in self._factories:
            return self._factories[name](self._settings)
        if server := self._settings.mcp_server(name):
            return self._server(server).tool(name)
        found = _entry_point(name)
        if found is None:
            raise SettingsError(f"there is no tool {name!r}")
        return _registered(found, self._settings.timeout_seconds)

    def _server(self, name: str) -> McpServer:
        from tasks.agents.tools.mcp_server import McpServer

        if name not in self._servers:
            self._servers[name] = McpServer(name, self._settings.mcp[name], self._environ)
        return self._servers[name]

    def _sql_parser(self, settings: ToolSettings) -> Tool[Any]:
        from tasks.agents.tools.sql_parser import SqlParser

        return SqlParser(settings.sql_parser, environ=self._environ)

    def _api_caller(self, settings: ToolSettings) -> Tool[Any]:
        from tasks.agents.tools.api_caller import ApiCaller

        return ApiCaller(settings.api_caller, environ=self._environ)


def _entry_point(name: str) -> EntryPoint | None:
    """Return who registered ``name``; nothing is imported.

    Raises:
        SettingsError: two packages did.
    """
    found = list(entry_points(group=TOOL_ENTRY_POINTS, name=name))
    if len(found) > 1:
        raise SettingsError(f"tool {name!r} is registered by {' and '.join(_source(point) for point in found)}")
    return found[0] if found else None


def _registered(point: EntryPoint, timeout_seconds: float) -> Tool[Any]:
    from tasks.agents.tools.function import FunctionTool

    source = _source(point)
    if not _NAME.fullmatch(point.name):
        raise SettingsError(f"tool {point.name!r} of {source}: a name has at most 64 letters, digits, _ and -")
    try:
        function = point.load()
    except Exception as error:
        raise SettingsError(f"tool {point.name!r} of {source} cannot be imported: {error}") from error
    if not callable(function):
        raise SettingsError(f"tool {point.name!r} of {source}: {point.value} is no function")
    return FunctionTool(point.name, function, timeout_seconds=timeout_seconds, source=source)


def _source(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value
