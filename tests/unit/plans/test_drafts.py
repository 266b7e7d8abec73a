"""What a model wrote is read if it can be; what a text enumerates is found."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.agents.drafts import read_draft
from tasks.agents.enumerated import enumerated
from tasks.contracts.plan import OnFailure, PlanStep
from tasks.errors import InvalidPlan
from tasks.settings import Settings

GOOD = {"id": "a", "agent": "responder", "instruction": "do it", "depends_on": [], "on_failure": "skip"}
PLAN = json.dumps({"steps": [GOOD]})
READ = PlanStep(id="a", agent="responder", instruction="do it", on_failure=OnFailure.SKIP)
AGENTS = ("executor", "responder")


@pytest.mark.parametrize(
    "text",
    [
        PLAN,
        f"```json\n{PLAN}\n```",
        f"Here is the plan:\n\n{PLAN}\nI hope that it helps {{really}}.",
        f'First {{not json}}, then {{"note": 1}}: {PLAN}',
        json.dumps([GOOD]),
        json.dumps({"thought": "hm", "steps": [{**GOOD, "why": "because"}]}),
        json.dumps({"steps": [{**GOOD, "depends_on": None}]}),
        json.dumps({"steps": [{"id": "a", "agent_type": "responder", "task": " do it ", "on_failure": "skip"}]}),
    ],
)
def test_a_plan_is_found_in_what_was_written(text: str) -> None:
    assert read_draft(text) == (READ,)


def test_numbers_will_do_for_ids() -> None:
    steps = [{**GOOD, "id": 1}, {**GOOD, "id": 2, "depends_on": 1}, {**GOOD, "id": "3", "depends_on": [1, "2"]}]
    assert [(step.id, step.depends_on) for step in read_draft(json.dumps({"steps": steps}))] == [
        ("1", ()),
        ("2", ("1",)),
        ("3", ("1", "2")),
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", 'no JSON of the form {"steps": [...]}'),
        ("Step one: think.", "no JSON"),
        ('{"steps": "later"}', "no JSON"),
        ('{"steps": [1]}', "steps.1: "),
        (json.dumps({"steps": [{**GOOD, "on_failure": "shrug"}]}), "steps.1: on_failure: "),
        (json.dumps({"steps": [GOOD, {"id": "b"}]}), "steps.2: agent: is missing"),
        (json.dumps({"steps": [{**GOOD, "id": "a b"}]}), "steps.1: id: "),
        (PLAN[:-5], "no JSON"),
    ],
)
def test_what_is_wrong_is_named(text: str, fault: str) -> None:
    with pytest.raises(InvalidPlan) as caught:
        read_draft(text)
    assert fault in str(caught.value)


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_whatever_is_written_is_a_plan_or_a_fault(text: str) -> None:
    with contextlib.suppress(InvalidPlan):
        assert isinstance(read_draft(text), tuple)


def test_what_nests_without_end_is_refused_in_time() -> None:
    for text in ("[" * 100_000, '{"steps":' * 100_000):
        with pytest.raises(InvalidPlan):
            read_draft(text)


def steps_of(text: str) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(step.agent, step.instruction, step.depends_on) for step in enumerated(text, Settings(), AGENTS)]


def test_numbered_parts_are_steps() -> None:
    text = "Please:\n1. Run SELECT 1 FROM t\n2) Fetch http://a.example/x\n3. Name 2.5 rivers. 7. is no step\n"
    assert steps_of(text) == [
        ("executor", "Run SELECT 1 FROM t", ()),
        ("executor", "Fetch http://a.example/x", ()),
        ("responder", "Name 2.5 rivers. 7. is no step", ()),
    ]


@pytest.mark.parametrize(
    ("last", "needs"),
    [
        ("Name the sea.", ()),
        ("Then name the sea.", ("s2",)),
        ("and then name it", ("s2",)),
        ("Say what the result means", ("s2",)),
        ("Finally name the sea.", ("s1", "s2")),
        ("Compare these results.", ("s1", "s2")),
        ("Sum up both", ("s1", "s2")),
        ("Explain step 1.", ("s1",)),
        ("Compare steps 1 and 2", ("s1", "s2")),
        ("Go on with step 9", ()),
    ],
)
def test_words_say_what_a_step_needs(last: str, needs: tuple[str, ...]) -> None:
    assert steps_of(f"1. Name the river. 2. Name the hill. 3. {last}")[2][2] == needs


@pytest.mark.parametrize(
    "text",
    [
        "What is a webhook?",
        "1. Only one thing",
        "2. Begins 3. in the middle",
        "Version 1.2 is out, 3. of May",
        "1. 2. 3.",
        f"1. {'x' * 5000} 2. y",
    ],
)
def test_other_texts_have_no_steps(text: str) -> None:
    assert steps_of(text) == []


def test_a_step_that_nobody_here_may_do_leaves_no_plan() -> None:
    assert enumerated("1. Run SELECT 1 FROM t 2. Name it", Settings(), ("responder",)) == ()


@given(
    st.lists(st.text(st.characters(codec="ascii", exclude_characters="0123456789"), min_size=1), min_size=2, max_size=9)
)
def test_a_step_needs_earlier_ones_only(parts: list[str]) -> None:
    text = " ".join(f"{number}. {part}" for number, part in enumerate(parts, 1))
    for number, (_, _, needs) in enumerate(steps_of(text), 1):
        assert all(int(need[1:]) < number for need in needs)
