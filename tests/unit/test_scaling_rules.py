"""Traces of metric values in, replica counts out, by what KEDA's and Kubernetes' documentation say."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.rules import DOWN, UP, Behaviour, Change, Direction, Fallback, Rules, Scaler

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
    assert replayed(PLAIN, [20, 0, 0, 0, 0, 0, 0, 0]) == [4, 1, 1, 1, 1, 1, 1, 0]


def test_work_in_the_cooldown_begins_it_anew() -> None:
    assert replayed(PLAIN, [5, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]) == [1] * 10 + [0]


def test_between_two_looks_nothing_happens() -> None:
    rules = Rules(maximum=10, target=1, polling=30, sync=15, up=AT_ONCE)
    seen = replayed(rules, [0, 9, 9, 9, 9, 9], every=5)
    assert seen == [0, 0, 0, 0, 0, 0]
    assert replayed(rules, [0, 9, 9, 9, 9, 9, 9, 9, 9, 9], every=5)[6:] == [9, 9, 9, 9]


def test_who_rings_hastens_the_first_worker_and_no_other() -> None:
    scaler = Scaler(Rules(maximum=10, target=1, polling=30, sync=30, up=AT_ONCE))
    assert scaler.decide(0, 0, 0) == 0
    assert scaler.decide(1, 1, 0) == 0
    assert scaler.decide(2, 1, 0, pushed=True) == 1
    assert scaler.decide(3, 5, 1, pushed=True) == 1
    assert scaler.decide(32, 5, 1) == 5


def test_kubernetes_own_way_up_is_to_double_or_to_add_four() -> None:
    rules = Rules(maximum=100, target=1, polling=15, sync=15)
    assert replayed(rules, [100] * 6, every=15) == [5, 10, 20, 40, 80, 100]


def test_down_waits_for_the_highest_of_the_window() -> None:
    rules = Rules(maximum=10, target=1, polling=15, sync=15, cooldown=10_000, up=AT_ONCE, down=Direction(60, (Change("Percent", 100, 15),)))  # fmt: skip # noqa: E501
    assert replayed(rules, [10, 3, 3, 7, 2, 2, 2, 2, 2], every=15) == [10, 10, 10, 10, 7, 7, 7, 2, 2]


def test_down_slowly_by_policy() -> None:
    rules = Rules(maximum=10, target=1, polling=15, sync=15, cooldown=10_000, up=AT_ONCE, down=Direction(0, (Change("Pods", 2, 15),)))  # fmt: skip # noqa: E501
    assert replayed(rules, [10, 1, 1, 1, 1, 1], every=15) == [10, 8, 6, 4, 2, 1]


def test_no_answer_changes_nothing_until_the_fallback() -> None:
    rules = Rules(maximum=10, target=5, polling=10, sync=10, up=AT_ONCE, fallback=Fallback(3, 6))
    # "Once that value passes the failureThreshold": the fourth failure, where the threshold is three.
    assert replayed(rules, [10, None, None, None, None, 10]) == [2, 2, 2, 2, 6, 6]
    assert replayed(rules, [10, None, None, None, 10, None, None, None]) == [2] * 8
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


def test_a_fallback_wakes_a_pool_and_lasts_until_somebody_answers() -> None:
    rules = Rules(maximum=10, target=5, polling=10, sync=10, cooldown=30, up=AT_ONCE, fallback=Fallback(1, 3))
    assert replayed(rules, [0, None, None, None, 0, 0, 0, 0, 0]) == [0, 0, 3, 3, 3, 3, 3, 3, 0]
    within = Rules(maximum=2, target=5, polling=10, sync=10, fallback=Fallback(0, 9))
    assert replayed(within, [None, None]) == [2, 2]


@pytest.mark.parametrize(
    ("behaviour", "few", "many"),
    [
        ("static", 4, 4),
        ("currentReplicas", 2, 6),
        ("currentReplicasIfHigher", 4, 6),
        ("currentReplicasIfLower", 2, 4),
    ],
)
def test_what_a_fallback_makes_of_what_is_there(behaviour: Behaviour, few: int, many: int) -> None:
    fast = Direction(0, (Change("Percent", 100, 1),))
    rules = Rules(maximum=9, target=5, polling=10, sync=10, up=AT_ONCE, down=fast, fallback=Fallback(0, 4, behaviour))
    assert replayed(rules, [10, None, None])[1:] == [few, few]
    assert replayed(rules, [30, None, None])[1:] == [many, many]


def test_within_a_tenth_of_the_target_nothing_changes_and_beyond_it_does() -> None:
    rules = Rules(maximum=100, target=10, polling=15, sync=15, cooldown=10_000, up=AT_ONCE, down=Direction(0, (Change("Percent", 100, 15),)))  # fmt: skip # noqa: E501
    assert replayed(rules, [100, 109, 111, 131, 133], every=15) == [10, 10, 12, 12, 14]
    assert replayed(rules, [100, 91, 90.5, 89], every=15) == [10, 10, 10, 9]


def test_the_cooldown_is_for_zero_only() -> None:
    """Between one and the maximum the autoscaler's windows count, and the cooldown does not."""
    rules = Rules(maximum=10, target=1, polling=15, sync=15, cooldown=10_000, up=AT_ONCE, down=Direction(0, (Change("Percent", 100, 15),)))  # fmt: skip # noqa: E501
    assert replayed(rules, [10, 1, 0, 0], every=15) == [10, 1, 1, 1]
    slow = Rules(maximum=10, target=1, polling=15, sync=15, cooldown=30, up=AT_ONCE, down=DOWN)
    assert replayed(slow, [10, 0, 0, 0], every=15) == [10, 10, 10, 0], "from any count, whatever the windows say"


def test_zero_is_never_the_autoscalers_own_decision() -> None:
    rules = Rules(maximum=10, target=1, polling=1000, sync=15, cooldown=1, up=AT_ONCE, down=Direction(0, (Change("Percent", 100, 15),)))  # fmt: skip # noqa: E501
    assert replayed(rules, [5, 0, 0, 0], every=15) == [5, 1, 1, 1]


def test_kubernetes_defaults() -> None:
    assert Direction(0, (Change("Percent", 100, 15), Change("Pods", 4, 15))) == UP
    assert Direction(300, (Change("Percent", 100, 15),)) == DOWN
    rules = Rules(maximum=100, target=1, polling=15, sync=15, cooldown=10_000)
    quiet = replayed(rules, [40, 40, 40, 40, *[1] * 22], every=15)
    assert quiet[:4] == [5, 10, 20, 40]
    assert quiet[4:22] + quiet[23:] == [40] * 18 + [1] * 3, "300 s after 40 were last asked for"


def test_a_window_upwards_waits_for_the_lowest() -> None:
    patient = Direction(30, (Change("Percent", 1_000_000, 15),))
    rules = Rules(maximum=10, target=1, polling=15, sync=15, cooldown=10_000, up=patient)
    assert replayed(rules, [1, 8, 5, 6, 6], every=15) == [1, 1, 5, 5, 6]


def test_what_was_there_at_the_beginning_counts_as_asked_for() -> None:
    rules = Rules(maximum=10, target=1, polling=15, sync=15, cooldown=10_000)
    assert replayed(rules, [2] * 21, every=15, replicas=6) == [6] * 20 + [2]


@pytest.mark.parametrize(("select", "second"), [("Max", 8), ("Min", 3), ("Disabled", 2)])
def test_which_policy_counts(select: str, second: int) -> None:
    policies = (Change("Pods", 6, 15), Change("Percent", 50, 15))
    up = Direction(0, policies, select)  # type: ignore[arg-type]
    rules = Rules(maximum=20, target=1, polling=15, sync=15, cooldown=10_000, up=up)
    assert replayed(rules, [20, 20], every=15, replicas=2)[0] == second
    down = Direction(0, policies, select)  # type: ignore[arg-type]
    rules = Rules(maximum=20, target=1, polling=15, sync=15, cooldown=10_000, down=down)
    assert replayed(rules, [1], every=15, replicas=10) == [{"Max": 4, "Min": 5, "Disabled": 10}[select]]


def test_beyond_its_bounds_a_pool_is_put_back_at_once() -> None:
    rules = Rules(maximum=4, target=1, polling=15, sync=15, down=Direction(300, (Change("Pods", 1, 60),)))
    assert replayed(rules, [9], every=15, replicas=9) == [4]
    rules = Rules(maximum=9, minimum=3, target=1, polling=15, sync=15)
    assert replayed(rules, [0], every=15, replicas=1) == [3]
