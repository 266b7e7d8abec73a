"""What makes a plan one that can be run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.base import parse_versioned
from tasks.contracts.plan import MAX_INSTRUCTION, OnFailure, Plan, PlanStep, check_plan, depth_of
from tasks.errors import InvalidPlan, MalformedMessage
from tests.support import build

AGENTS = ("executor", "responder")


def step(step_id: str, *needs: str, **fields: object) -> PlanStep:
    standard = {"agent": "responder", "instruction": "do it", "depends_on": needs}
    return PlanStep(id=step_id, **{**standard, **fields})  # type: ignore[arg-type]


def check(*steps: PlanStep, max_steps: int = 8, max_depth: int = 4) -> None:
    check_plan(steps, agents=AGENTS, max_steps=max_steps, max_depth=max_depth)


@pytest.mark.parametrize(
    ("steps", "fault"),
    [
        ((), "steps: there are none"),
        ((step("a", agent="nobody"),), "step a: agent: 'nobody' does no steps here; name one of executor, responder"),
        ((step("a", agent="planner"),), "step a: agent: 'planner' does no steps here"),
        ((step("a", "z"),), "step a: depends_on: no step has the id z"),
        ((step("a"), step("a")), "steps: more than one has the id a"),
        ((step("a", "b"), step("b", "a")), "steps: depend on each other in a circle"),
        ((step("a", "a"),), "steps: depend on each other in a circle"),
        (tuple(step(f"s{n}") for n in range(9)), "steps: 9, the limit is 8"),
        (
            (step("a"), step("b", "a"), step("c", "b"), step("d", "c"), step("e", "d")),
            "steps: 5 in a row, each of which needs the one before; the limit is 4",
        ),
    ],
)
def test_a_fault_is_named(steps: tuple[PlanStep, ...], fault: str) -> None:
    with pytest.raises(InvalidPlan) as caught:
        check(*steps)
    assert fault in str(caught.value)


def test_all_faults_are_named_together() -> None:
    with pytest.raises(InvalidPlan, match=r"step a: agent: .*; step b: depends_on: "):
        check(step("a", agent="nobody"), step("b", "z"))


@st.composite
def dags(draw: st.DrawFn) -> tuple[PlanStep, ...]:
    """Any steps of which each needs only earlier ones, in any order."""
    count = draw(st.integers(1, 12))
    steps = [
        step(f"s{n}", *sorted(draw(st.sets(st.sampled_from([f"s{m}" for m in range(n)])))) if n else ())
        for n in range(count)
    ]
    return tuple(draw(st.permutations(steps)))


@given(dags())
def test_what_needs_only_earlier_steps_is_a_plan(steps: tuple[PlanStep, ...]) -> None:
    check(*steps, max_steps=12, max_depth=12)
    depth = depth_of(steps)
    assert depth is not None
    assert 1 <= depth <= len(steps)
    if depth > 1:
        with pytest.raises(InvalidPlan, match="in a row"):
            check(*steps, max_steps=12, max_depth=depth - 1)


@given(dags(), st.data())
def test_a_circle_is_found_wherever_it_is(steps: tuple[PlanStep, ...], data: st.DataObject) -> None:
    first = data.draw(st.sampled_from(steps))
    after = [other for other in steps if _reaches(steps, other, first.id)]
    last = data.draw(st.sampled_from(after))
    closed = tuple(
        other.changed(depends_on=(*other.depends_on, last.id)) if other.id == first.id else other for other in steps
    )
    assert depth_of(closed) is None


def _reaches(steps: tuple[PlanStep, ...], step: PlanStep, needed: str) -> bool:
    """Tell whether ``step`` is, or needs, the step ``needed``."""
    by_id = {other.id: other for other in steps}
    return step.id == needed or any(_reaches(steps, by_id[need], needed) for need in step.depends_on)


@given(dags())
def test_a_plan_reads_back_as_it_was_written(steps: tuple[PlanStep, ...]) -> None:
    plan = Plan(tenant="t", request_id="r1", started_at=build.EPOCH, model="m", steps=steps)
    assert parse_versioned(Plan, plan.to_bytes()) == plan


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "../x"},
        {"id": ""},
        {"id": "a#b"},
        {"agent": "No Body"},
        {"instruction": ""},
        {"instruction": "x" * (MAX_INSTRUCTION + 1)},
        {"on_failure": "shrug"},
        {"depends_on": ["a/b"]},
    ],
)
def test_a_stored_plan_with_a_wrong_field_is_none(wrong: dict[str, object]) -> None:
    plan = Plan(tenant="t", request_id="r1", started_at=build.EPOCH, model="m", steps=(step("a"),)).to_dict()
    plan["steps"] = [{**plan["steps"][0], **wrong}]
    with pytest.raises(MalformedMessage):
        parse_versioned(Plan, plan)


def test_a_step_fails_its_plan_unless_it_says_otherwise() -> None:
    assert step("a").on_failure is OnFailure.FAIL
