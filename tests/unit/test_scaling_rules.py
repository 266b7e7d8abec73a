"""Traces of metric values in, replica counts out, by what KEDA's and Kubernetes' documentation say."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.rules import Change, Direction, Fallback, Rules, Scaler

AT_ONCE = Direction(0, (Change("Percent", 1_000_000, 15),))
PLAIN = Rules(maximum=10, target=5, polling=10, cooldown=60, sync=10, up=AT_ONCE, down=Direction(0, (Change("Percent", 100, 10),)))  # fmt: skip # noqa: E501


def replayed(rules: Rules, metrics: Sequence[float | None], *, every: float = 10, replicas: int = 0) -> list[int]:
    scaler, seen = Scaler(rules), []
    for number, metric in enumerate(metrics):
        replicas = scaler.decide(number * every, metric, replicas)
        seen.append(replicas)
    return seen


def test_activation_is_strictly_greater() -> None:
    rules = Rules(maximum=10, target=5, activation=3, polling=10, sync=10)
    assert replayed(rules, [0, 3, 3, 4]) == [0, 0, 0, 1]


def test_a_load_is_divided_by_the_target_and_rounded_up() -> None:
    assert replayed(PLAIN, [1, 5, 6, 11, 26, 1000]) == [1, 1, 2, 3, 6, 10]


def test_within_the_tolerance_nothing_changes() -> None:
    assert replayed(PLAIN, [50, 46, 45, 44]) == [10, 10, 10, 9]


def test_zero_only_after_the_cooldown_and_from_any_count() -> None:
    assert replayed(PLAIN, [20, 0, 0, 0, 0, 0, 0, 0]) == [4, 1, 1, 1, 1, 1, 0, 0]


def test_work_in_the_cooldown_begins_it_anew() -> None:
    assert replayed(PLAIN, [5, 0, 0, 1, 0, 0, 0, 0, 0, 0]) == [1, 1, 1, 1, 1, 1, 1, 1, 1, 0]


def test_between_two_looks_nothing_happens() -> None:
    rules = Rules(maximum=10, target=1, polling=30, sync=15, up=AT_ONCE)
    seen = replayed(rules, [0, 9, 9, 9, 9, 9], every=5)
    assert seen == [0, 0, 0, 0, 0, 0]
    assert replayed(rules, [0, 9, 9, 9, 9, 9, 9, 9, 9, 9], every=5)[6:] == [9, 9, 9, 9]


def test_kubernetes_own_way_up_is_to_double_or_to_add_four() -> None:
    rules = Rules(maximum=100, target=1, polling=15, sync=15)
    assert replayed(rules, [100] * 6, every=15) == [5, 10, 20, 40, 80, 100]


def test_down_waits_for_the_highest_of_the_window() -> None:
    rules = Rules(maximum=10, target=1, polling=15, sync=15, cooldown=10_000, up=AT_ONCE, down=Direction(60, (Change("Percent", 100, 15),)))  # fmt: skip # noqa: E501
    assert replayed(rules, [10, 3, 3, 7, 2, 2, 2, 2, 2], every=15) == [10, 10, 10, 10, 10, 7, 7, 7, 2]


def test_down_slowly_by_policy() -> None:
    rules = Rules(maximum=10, target=1, polling=15, sync=15, cooldown=10_000, up=AT_ONCE, down=Direction(0, (Change("Pods", 2, 15),)))  # fmt: skip # noqa: E501
    assert replayed(rules, [10, 1, 1, 1, 1, 1], every=15) == [10, 8, 6, 4, 2, 1]


def test_no_answer_changes_nothing_until_the_fallback() -> None:
    rules = Rules(maximum=10, target=5, polling=10, sync=10, up=AT_ONCE, fallback=Fallback(3, 6))
    assert replayed(rules, [10, None, None, None, None, 10]) == [2, 2, 2, 6, 6, 6]
    assert replayed(PLAIN, [10, None, None, None, None]) == [2, 2, 2, 2, 2]


def test_a_pool_that_never_sleeps_keeps_its_minimum() -> None:
    rules = Rules(maximum=10, target=5, minimum=2, polling=10, cooldown=10, sync=10)
    assert replayed(rules, [0, 0, 0], replicas=5)[-1] >= 2
    assert replayed(rules, [0]) == [2]


@given(st.lists(st.none() | st.floats(0, 1000), max_size=60), st.floats(1, 40), st.integers(0, 12))
def test_never_beyond_its_bounds_and_never_asleep_over_work(
    metrics: list[float | None], every: float, replicas: int
) -> None:
    replicas = min(replicas, PLAIN.maximum)
    scaler = Scaler(PLAIN)
    for number, metric in enumerate(metrics):
        before, replicas = replicas, scaler.decide(number * every, metric, replicas)
        assert 0 <= replicas <= PLAIN.maximum
        if replicas == 0 and before:
            assert metric == 0
        if metric is not None and metric > 0 and every >= PLAIN.polling:
            assert replicas >= 1


@pytest.mark.parametrize("kind", ["Pods", "Percent"])
def test_a_policy_counts_what_was_done_in_its_period(kind: str) -> None:
    change = Change("Pods", 4, 60) if kind == "Pods" else Change("Percent", 100, 60)
    rules = Rules(maximum=100, target=1, polling=15, sync=15, up=Direction(0, (change,)))
    seen = replayed(rules, [100] * 5, every=15, replicas=4)
    assert seen == [8, 8, 8, 8, 12 if kind == "Pods" else 16]
