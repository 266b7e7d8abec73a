"""An agent that leaves the answer to a person."""

from typing import Any

import pytest

from tasks.agents.instructions import ABSTAINS, abstained, instructions_for
from tasks.agents.types import AgentTask
from tasks.settings import AgentSettings, Settings
from tests.support.replay import ReplayModels, runner


def task(kind: str = "responder", **changes: Any) -> AgentTask:
    return AgentTask(agent=Settings().agent(kind).changed(**changes), text="May I take two of these?")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("ESCALATE: only a doctor may say", "only a doctor may say"),
        ("ESCALATE:", "The agent gave no reason."),
        ("I would not ESCALATE: it is fine", None),
        ("escalate: no", None),
        ("", None),
    ],
)
def test_an_answer_that_is_none_says_so_at_its_beginning(said: str, why: str | None) -> None:
    assert abstained(said) == why


async def test_an_agent_that_abstains_is_escalated_with_its_reason() -> None:
    answer = await runner(Settings(), ReplayModels("ESCALATE: only a doctor may say")).run(task())
    assert (answer.escalated, answer.output) == (True, "only a doctor may say")
    answer = await runner(Settings(), ReplayModels("Yes.")).run(task())
    assert (answer.escalated, answer.output) == (False, "Yes.")


async def test_a_model_is_told_how_unless_ones_own_words_say_otherwise() -> None:
    models = ReplayModels("Yes.")
    for changes in ({}, {"instructions": "Be kind."}):
        await runner(Settings(), models).run(task(**changes))
    first, own = [client.create_calls[0]["messages"][0].content for client in models.clients]
    assert ABSTAINS in first
    assert own == "Be kind."


def test_small_models_and_those_who_write_to_people_are_not_told() -> None:
    assert ABSTAINS not in instructions_for(AgentSettings(type="responder"))
    assert ABSTAINS not in instructions_for(AgentSettings(type="human_escalation"), may_abstain=True)
