"""Which tools there are, by the name that an agent's settings use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tasks.agents.tools.base import Tool
from tasks.errors import SettingsError
from tasks.settings import AgentSettings, ToolSettings

Factory = Callable[[ToolSettings], Tool[Any]]


def _sql_parser(settings: ToolSettings) -> Tool[Any]:
    from tasks.agents.tools.sql_parser import SqlParser

    return SqlParser(settings.sql_parser)


def _api_caller(settings: ToolSettings) -> Tool[Any]:
    from tasks.agents.tools.api_caller import ApiCaller

    return ApiCaller(settings.api_caller)


BUILT_IN: Final[dict[str, Factory]] = {"sql_parser": _sql_parser, "api_caller": _api_caller}


class ToolRegistry:
    """Makes each tool once, on first use. ``factories`` adds to or replaces the built-in ones."""

    def __init__(self, settings: ToolSettings, factories: dict[str, Factory] | None = None) -> None:
        self._settings = settings
        self._factories = {**BUILT_IN, **(factories or {})}
        self._made: dict[str, Tool[Any]] = {}

    def check(self, agent: AgentSettings) -> None:
        """Raise :class:`SettingsError` where ``agent`` names a tool that does not exist."""
        unknown = [name for name in agent.tools if name not in self._factories]
        if unknown:
            raise SettingsError(
                f"agents.{agent.type}.tools: there is no tool {', '.join(map(repr, unknown))}; "
                f"known tools: {', '.join(sorted(self._factories))}"
            )

    def for_agent(self, agent: AgentSettings) -> tuple[Tool[Any], ...]:
        """Return the tools of ``agent`` in the order of its settings.

        Raises:
            SettingsError: it names a tool that does not exist.
        """
        self.check(agent)
        return tuple(self._tool(name) for name in dict.fromkeys(agent.tools))

    def _tool(self, name: str) -> Tool[Any]:
        if name not in self._made:
            self._made[name] = self._factories[name](self._settings)
        return self._made[name]
