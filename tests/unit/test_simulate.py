"""The replay against what can be worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.rules import Rules, Scaler
from scaling.simulate import Costs, Pool, Service, always, by_rules, compare, replay

FIXED = Service(2.0, variation=0.0)


def pulses(*counts: float, every: int = 1) -> np.ndarray:
    made = np.zeros(len(counts) * every)
    made[::every] = counts
    return made


def test_with_enough_workers_a_request_takes_its_service_time() -> None:
    found = replay(pulses(*[1.0] * 100), always(1), Pool(16, FIXED, 0), replicas=1)
    assert found.latency == {0.5: 2.0, 0.95: 2.0, 0.99: 2.0}
    assert found.running.max() == pytest.approx(8)  # Little: four a second for two seconds


def test_one_slot_serves_one_after_the_other() -> None:
    found = replay(pulses(10), always(1), Pool(1, FIXED, 0), replicas=1)
    assert found.latency[0.5] == pytest.approx(10, abs=2)
    assert found.latency[0.99] == pytest.approx(20, abs=0.5)


def test_from_zero_the_first_request_waits_for_the_look_and_for_the_start() -> None:
    rules = Rules(maximum=1, target=10, polling=4, cooldown=10, sync=4)
    found = replay(pulses(0, 0, 0, 0, 0, 1), by_rules(Scaler(rules)), Pool(4, FIXED, 3.0))
    # It comes after 1.25 s, is seen after 4 s; then 3 s to start and 2 s of work.
    assert found.latency[0.5] == pytest.approx(4 - 1.25 + 3 + 2, abs=0.25)
    assert found.replicas[-1] == 0
    assert found.unfinished == 0


def test_what_is_paid_is_the_time_of_workers() -> None:
    found = replay(pulses(*[1.0] * 400), always(2), Pool(16, FIXED, 0), replicas=2)
    hours = found.worker_seconds / 3600
    assert found.worker_seconds == pytest.approx(2 * len(found.replicas) * found.tick)
    assert found.cost_per_million(Costs(worker_hour=1.0)) == pytest.approx(hours / 400 * 1e6)


def test_who_is_always_on_is_paid_for_the_whole_trace_and_who_sleeps_until_asleep() -> None:
    load = pulses(5, *[0.0] * 3999)
    ways = compare(load, Rules(maximum=3, target=4, polling=1, cooldown=10, sync=1), Pool(4, FIXED, 1.0))
    assert ways["always on"].worker_seconds == pytest.approx(3 * 1000, abs=3)
    assert ways["waiting + running"].worker_seconds < 100
    assert ways["waiting + running"].replicas[-1] == 0
    # The last request of a pool that is busy is seen by who counts what runs.
    assert ways["queue length alone"].worker_seconds <= ways["waiting + running"].worker_seconds


def test_waits_are_those_of_what_came_in_each_tick() -> None:
    found = replay(pulses(1, 1, 1, every=8), always(1), Pool(1, FIXED, 0), replicas=1)
    assert found.waits[[0, 8, 16]].tolist() == [0, 0, 0]
    found = replay(pulses(1, 1, 1, every=4), always(1), Pool(1, FIXED, 0), replicas=1)
    assert found.waits[[0, 4, 8]].tolist() == [0, 1, 2]
    asleep = replay(pulses(1), always(0), Pool(1, FIXED, 0))
    assert np.isinf(asleep.waits[0])


def test_without_activation_work_is_never_finished_and_that_is_said() -> None:
    rules = Rules(maximum=1, target=1, activation=5, polling=1, sync=1)
    found = replay(pulses(3), by_rules(Scaler(rules)), Pool(1, FIXED, 0))
    assert found.unfinished == pytest.approx(3)


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=60),
    st.integers(1, 8),
    st.integers(1, 16),
    st.floats(0.2, 20),
    st.floats(0, 2),
)
def test_nothing_is_lost_and_nobody_has_more_slots_than_there_are(
    counts: list[int], maximum: int, concurrency: int, mean: float, variation: float
) -> None:
    rules = Rules(maximum=maximum, target=concurrency, polling=1, cooldown=5, sync=1)
    pool = Pool(concurrency, Service(mean, variation), 1.0)
    found = replay(np.array(counts, dtype=float), by_rules(Scaler(rules)), pool)
    if found.unfinished == 0:
        assert found.running[-1] == pytest.approx(0, abs=1e-5)
        assert found.replicas[-1] == 0
    assert found.running.max() <= maximum * concurrency + 1e-6
    assert found.waiting.min() >= 0


@given(st.floats(0.1, 30), st.floats(0, 2))
def test_service_times_have_the_mean_that_was_asked_for(mean: float, variation: float) -> None:
    shares = Service(mean, variation).per_tick(0.05)
    assert shares.sum() == pytest.approx(1)
    assert shares.min() >= 0
    found = float((shares * np.arange(1, len(shares) + 1)).sum() * 0.05)
    assert found == pytest.approx(mean, rel=0.06, abs=0.06)
