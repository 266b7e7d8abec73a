"""Agent types, and the teams that some of them are."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from tasks.settings.base import Count, Positive, Section
from tasks.settings.tools import BUILT_IN_TOOLS

PLANNER: Final = "planner"
"""The agent type that splits requests into steps without being told to."""

Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]


class MemberSettings(Section, frozen=True, kw_only=True):
    """One member of a team. ``model``, where it is left out, is that of the agent type."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,62}\Z")]
    instructions: Annotated[str, msgspec.Meta(min_length=1)]
    model: str | None = None
    temperature: Temperature = 0.2
    max_tokens: Count | None = None
    tools: tuple[str, ...] = ()


class TeamSettings(Section, frozen=True, kw_only=True):
    """Several members instead of one assistant; what comes out is the last message, less the word ``until``.

    ``round_robin`` lets them speak in turn, until one says ``until``; each once where there is no such word. In
    ``selector`` the agent type's model says who speaks next.
    """

    shape: Literal["round_robin", "selector"]
    members: Annotated[tuple[MemberSettings, ...], msgspec.Meta(min_length=2)]
    until: str = ""


class PlanSettings(Section, frozen=True, kw_only=True):
    """How a planner splits a request: into ``max_steps`` at most (0: never), ``max_depth`` of them one after another.

    ``look_seconds``: after so long without the end of a step it looks for itself what has become of them.
    """

    max_steps: Annotated[int, msgspec.Meta(ge=0, le=64)] = 8
    max_depth: Count = 4
    look_seconds: Positive = 300


class AgentSettings(Section, frozen=True, kw_only=True):
    """One agent type. ``model`` names an entry of ``models`` or a model of the default endpoint.

    ``concurrency`` is requests at a time in one worker process, instead of that of its pool. An attempt that needs more
    than ``max_turns`` calls of a model, ``max_total_tokens`` or ``max_tool_calls`` ends, and the fallback takes over.
    """

    type: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,62}\Z")]
    model: str | None = None
    temperature: Temperature = 0.2
    max_tokens: Count | None = None
    tools: tuple[str, ...] = ()
    fallback: str | None = None
    instructions: str = ""
    team: TeamSettings | None = None
    concurrency: Count | None = None
    deadline_seconds: Positive = 120
    max_turns: Count = 12
    max_total_tokens: Count | None = None
    max_tool_calls: Count = 4
    plan: PlanSettings | None = None

    @property
    def planning(self) -> PlanSettings | None:
        """Return how this agent type plans, None where it does not. The type ``planner`` does by itself."""
        plan = self.plan or (PlanSettings() if self.type == PLANNER else None)
        return plan if plan and plan.max_steps else None

    @property
    def all_tools(self) -> tuple[str, ...]:
        """Return the tools of the assistant or of the team's members, each once."""
        members = self.team.members if self.team else ()
        return tuple(dict.fromkeys((*self.tools, *(tool for member in members for tool in member.tools))))


DEFAULT_AGENTS: Final = (
    AgentSettings(type="planner", fallback="human_escalation"),
    AgentSettings(type="executor", tools=BUILT_IN_TOOLS, fallback="human_escalation"),
    AgentSettings(type="responder", fallback="human_escalation"),
    AgentSettings(type="human_escalation"),
)
