"""What each agent type is told to do, unless its settings say otherwise. Short: small models read slowly."""

from __future__ import annotations

from typing import Final

from tasks.agents.types import HUMAN_ESCALATION
from tasks.settings import AgentSettings

_DEFAULTS: Final = {
    "planner": (
        "You plan. Break the user's goal into a numbered list of three to six short steps, in the order in "
        "which they must happen. One line for each step. Do not carry them out."
    ),
    "executor": (
        "You carry out the user's request with your tools. Call a tool when it can get the facts. Then "
        "report briefly and exactly what the tool returned; never invent values. If a tool failed, say why."
    ),
    "responder": (
        "You answer, summarise or draft what the user asks for. Be correct and concise, and write nothing "
        "but the answer itself. Say so when you do not know."
    ),
    "human_escalation": (
        "A human colleague will take over this request. Write a brief for that colleague in exactly two "
        "sentences: what the user wants, and what the colleague should do first. Do not address the user."
    ),
}
_OTHER: Final = "You are a helpful assistant. Be correct and concise."

ABSTAINS: Final = "ESCALATE:"
"""What an answer begins with that is none: a person has to answer, for the reason that follows."""
_MAY_ABSTAIN: Final = f"If only a person can or may answer, write nothing but {ABSTAINS} and why."


def instructions_for(agent: AgentSettings, *, may_abstain: bool = False) -> str:
    """Return the system message of ``agent``: its own instructions, else those of its type.

    ``may_abstain``: the model is able enough to be told how; one's own instructions have to say it themselves.
    """
    if own := agent.instructions.strip():
        return own
    standard = _DEFAULTS.get(agent.type, _OTHER)
    return f"{standard} {_MAY_ABSTAIN}" if may_abstain and agent.type != HUMAN_ESCALATION else standard


def abstained(output: str) -> str | None:
    """Return why the agent that wrote ``output`` leaves the answer to a person; None where it answered."""
    if not output.startswith(ABSTAINS):
        return None
    return output.removeprefix(ABSTAINS).strip() or "The agent gave no reason."
