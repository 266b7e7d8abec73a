"""What a model is asked when it is to plan, and how its answer is read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tasks.contracts.base import told
from tasks.contracts.plan import PlanStep
from tasks.errors import InvalidPlan
from tasks.settings import AgentSettings, PlanSettings

_MOST_READ: Final = 64 * 1024
_ABOUT: Final = 160
"""Characters of what the model is told of each agent type."""
_OPENS: Final = re.compile(r"[{\[]")
_ALIASES: Final = {"agent_type": "agent", "type": "agent", "name": "id", "task": "instruction", "needs": "depends_on"}

_TRIES: Final = 32
"""Places at which JSON is looked for: what is nested a thousandfold takes long to be refused."""


def instructions(plan: PlanSettings, agents: Sequence[tuple[AgentSettings, str]]) -> str:
    """Return the system message that asks for a plan; ``agents`` are those that do steps, and what they are told."""
    about = "\n".join(_about(agent, words) for agent, words in agents)
    return (
        "Split the user's request into steps that agents carry out, each on its own. Answer with JSON only:\n"
        '{"steps": [{"id": "s1", "agent": "…", "instruction": "…", "depends_on": [], "on_failure": "fail"}]}\n'
        f"The agents:\n{about}\n"
        "An instruction says everything that its agent needs: agents see neither the request nor each other. A step "
        "is given the output of those that it depends on; steps that do not depend on each other run at the same time. "
        "on_failure: fail (the request fails), skip (the others go on without it), fall_back (another agent does it). "
        f"At most {plan.max_steps} steps, at most {plan.max_depth} one after another. "
        'A request that one agent answers as well needs no steps: {"steps": []}'
    )


def _about(agent: AgentSettings, words: str) -> str:
    tools = f" (tools: {', '.join(agent.all_tools)})" if agent.all_tools else ""
    return f"- {agent.type}{tools}: {words[:_ABOUT]}"


def read_draft(text: str) -> tuple[PlanStep, ...]:
    """Return the steps in what a model wrote: a JSON object with ``steps``, or their list, words around it or not.

    Raises:
        InvalidPlan: there is none, or a step is wrong; the message names the field.
    """
    drafted = _found(text[:_MOST_READ])
    steps = drafted.get("steps") if isinstance(drafted, dict) else drafted
    if not isinstance(steps, list):
        raise InvalidPlan('no JSON of the form {"steps": [...]}')
    read = []
    for number, step in enumerate(steps, 1):
        try:
            read.append(msgspec.convert(_spelt(step), PlanStep))
        except (ValueError, RecursionError) as error:
            raise InvalidPlan(f"steps.{number}: {told(error)}") from error
    return tuple(read)


def _found(text: str) -> Any:
    """Return the first JSON object or list in ``text`` that may be a plan."""
    decoder = json.JSONDecoder()
    at = 0
    for _ in range(_TRIES):
        found = _OPENS.search(text, at)
        if found is None:
            break
        try:
            value, at = decoder.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            at = found.end()
            continue
        if isinstance(value, dict) and "steps" in value:
            return value
        # An empty list is what is left of a plan that was cut off inside its first step.
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            return value
    return None


def _spelt(step: Any) -> Any:
    """Return ``step`` with the contract's names and types, where a model's own are as clear."""
    if not isinstance(step, dict):
        return step
    named = {_ALIASES.get(name, name): value for name, value in step.items()}
    named = {name: value for name, value in named.items() if value is not None}
    needs = named.get("depends_on", [])
    for name in ("id", "agent", "instruction"):
        if isinstance(named.get(name), str | int):
            named[name] = str(named[name]).strip()
    named["depends_on"] = [str(need) for need in (needs if isinstance(needs, list) else [needs])]
    return named
