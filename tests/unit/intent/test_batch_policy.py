"""The policy of batching: what it never does, whatever comes."""

import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.intent_batching import ARRIVALS, Cost, Greedy, arrivals_of, simulate
from intent.batch_cost import CostModel
from intent.batch_policy import Limits, Policy
from tasks.errors import InvalidInput

SMALL = st.integers(1, 32)
LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=60)
COSTS = st.builds(CostModel, st.floats(0, 1e-3), st.floats(1e-4, 3e-2))
GAPS = st.lists(st.floats(0, 0.05), max_size=80)


def policy(limits: Limits | None = None, per_token: float = 1e-6, fixed: float = 0.02) -> Policy:
    """Return one of a server where batches pay: 20 ms a run, and next to nothing for a token."""
    return Policy(limits or Limits(latency=0.1), CostModel(per_token, fixed))


def told(chosen: Policy, gaps: list[float], tokens: int = 12) -> float:
    """Tell of arrivals; return when the last one came."""
    now = 100.0
    for gap in [0.0, *gaps]:
        now += gap
        chosen.arrived(tokens, now)
    return now


@given(lengths=LENGTHS, cost=COSTS, max_batch=st.integers(1, 20), max_tokens=st.integers(1, 1000))
def test_a_batch_holds_the_oldest_and_keeps_the_bounds(lengths, cost, max_batch, max_tokens) -> None:
    places = Policy(Limits(max_batch, max_tokens), cost).plan(lengths, 0.0, 0.0).places
    assert places[0] == 0
    assert places == sorted(set(places))
    assert len(places) <= max_batch
    if len(places) > 1:
        assert max(lengths[place] for place in places) * len(places) <= max_tokens


@given(lengths=LENGTHS, cost=COSTS, max_batch=st.integers(1, 9), max_tokens=st.integers(1, 400))
def test_nobody_starves(lengths, cost, max_batch, max_tokens) -> None:
    chosen = Policy(Limits(max_batch, max_tokens), cost)
    waiting = list(enumerate(lengths))
    for batch in range(len(lengths)):
        if not waiting:
            break
        places = chosen.plan([length for _, length in waiting], 0.0, 0.0, hold=False).places
        # Whoever has so many in front of it is served after as many batches at the latest.
        assert waiting[0][0] >= batch
        waiting = [item for place, item in enumerate(waiting) if place not in places]
    assert not waiting


@given(lengths=LENGTHS, cost=COSTS)
def test_padding_costs_less_than_the_runs_that_it_spares(lengths, cost) -> None:
    taken = [lengths[place] for place in Policy(Limits(), cost).plan(lengths, 0.0, 0.0).places]
    together = cost.seconds(max(taken) * len(taken))
    alone = sum(cost.seconds(length) for length in taken)
    assert together <= alone * (1 + 1e-9)


def test_neighbours_in_length_run_together() -> None:
    chosen = policy(per_token=1e-4, fixed=1e-3)  # a run is worth ten tokens
    assert chosen.plan([5, 90, 6, 91, 5], 0.0, 0.0).places == [0, 2, 4]
    assert chosen.plan([90, 5, 6, 99, 111], 0.0, 0.0).places == [0, 3]


def test_where_runs_are_dear_everything_runs_together() -> None:
    assert policy().plan([5, 90, 6, 5], 0.0, 0.0).places == [0, 1, 2, 3]


@settings(max_examples=200)
@given(
    lengths=LENGTHS,
    cost=COSTS,
    gaps=GAPS,
    latency=st.floats(0.001, 0.2),
    waited=st.floats(0, 0.3),
    since=st.floats(0, 0.1),
)
def test_no_hold_goes_past_the_objective(lengths, cost, gaps, latency, waited, since) -> None:
    chosen = Policy(Limits(latency=latency), cost)
    now = told(chosen, gaps) + since
    plan = chosen.plan(lengths, now - waited, now)
    if plan.until is not None:
        assert plan.until > now
        assert plan.until + cost.seconds(max(lengths) * len(lengths)) <= now - waited + latency + 1e-9


@given(lengths=LENGTHS, cost=COSTS, gaps=GAPS)
def test_nothing_is_held_when_nothing_is_expected(lengths, cost, gaps) -> None:
    chosen = Policy(Limits(latency=10), cost)
    assert chosen.plan(lengths, 0.0, 0.0).until is None
    now = told(chosen, gaps) + max(gaps, default=0.0)
    assert chosen.plan(lengths, now, now + 1e-6).until is None


@given(gaps=GAPS, lengths=LENGTHS)
def test_nothing_is_held_while_costs_are_unknown(gaps, lengths) -> None:
    chosen = Policy(Limits(latency=10))
    now = told(chosen, gaps)
    assert chosen.plan(lengths, now, now).until is None


def trains() -> list[float]:
    """Return gaps of pairs, 2 ms apart, every 300 ms; the last pair has only begun."""
    return [0.002, 0.3] * 25


def test_in_trains_of_arrivals_the_first_is_held_for_the_next() -> None:
    chosen = policy()
    now = told(chosen, trains())
    assert chosen.plan([12], now, now).until == pytest.approx(now + 0.002)
    assert chosen.plan([12], now, now, hold=False).until is None
    assert chosen.plan([12], now, now + 0.0025).until is None


def test_a_full_batch_is_not_held() -> None:
    for limits in (Limits(max_batch=1, latency=1), Limits(max_tokens=20, latency=1)):
        chosen = policy(limits)
        now = told(chosen, trains())
        assert chosen.plan([12], now, now).until is None


def test_a_batch_is_not_held_while_others_wait() -> None:
    chosen = policy(per_token=1e-4)
    now = told(chosen, trains(), tokens=1)
    assert chosen.plan([1], now, now).until is not None
    assert chosen.plan([1, 900], now, now).until is None


@given(cost=COSTS, tokens=st.integers(1, 200), waiting=st.lists(st.integers(1, 200), max_size=60), max_batch=SMALL)
def test_the_expected_latency_is_that_of_the_batches_that_would_run(cost, tokens, waiting, max_batch) -> None:
    chosen = Policy(Limits(max_batch, 10_000, latency=1000), cost)
    left, spent = list(enumerate([*waiting, tokens])), 0.0
    queue = [(length, 0.0) for length in waiting]
    while len(waiting) in (number for number, _ in left):
        places = chosen.plan([length for _, length in left], 0.0, 0.0, hold=False).places
        spent += cost.seconds(max(left[place][1] for place in places) * len(places))
        left = [item for place, item in enumerate(left) if place not in places]
    assert chosen.expected(tokens, queue, 0.0) == pytest.approx(spent)
    chosen.began(500, 0.0)
    assert chosen.expected(tokens, queue, 0.0) == pytest.approx(spent + cost.seconds(500))
    late = [(length, 100.0) for length in waiting]
    assert chosen.expected(tokens, late, 100.0) == pytest.approx(spent)
    chosen.ended(500, None)
    assert chosen.expected(tokens, queue, 0.0) == pytest.approx(spent)


def test_beyond_the_objective_nothing_more_is_worked_out() -> None:
    assert 0.1 < policy(Limits(max_batch=1, latency=0.1)).expected(12, [(12, 0.0)] * 100_000, 0.0) < 0.13


def test_the_oldest_of_a_batch_counts() -> None:
    chosen = policy(Limits(latency=0.1), per_token=1e-3, fixed=0.02)
    assert chosen.expected(10, [(10, -0.065)], 0.0) == pytest.approx(0.105)


def test_nothing_is_foreseen_while_costs_are_unknown() -> None:
    assert Policy(Limits()).expected(12, [(12, 0.0)] * 1000, 0.0) == 0


@pytest.mark.parametrize("kind", ARRIVALS)
@pytest.mark.parametrize("cost", [Cost(0.13e-3, 1.2e-3), Cost(2e-6, 4e-3), Cost(1e-6, 2e-2)], ids=["cpu", "gpu", "big"])
@pytest.mark.parametrize("load", [0.2, 0.6, 1.2])
def test_it_is_never_worse_than_greedy_beyond_noise(kind: str, cost: Cost, load: float) -> None:
    limits = Limits()
    items = arrivals_of(kind, cost, load, 1500, seed=1)
    ours, greedy = (
        statistics.fmean(simulate(way, limits, items, cost, seed=1, shed=False).latencies)
        for way in (Policy(limits), Greedy(limits))
    )
    assert ours <= greedy * 1.01


def test_it_is_better_than_greedy_where_arrivals_come_in_trains() -> None:
    cost, limits = Cost(1e-6, 2e-2), Limits()
    items = arrivals_of("trains", cost, 0.3, 1500, seed=1)
    ours, greedy = (
        statistics.fmean(simulate(way, limits, items, cost, seed=1, shed=False).latencies)
        for way in (Policy(limits), Greedy(limits))
    )
    assert ours < greedy * 0.85


def test_what_is_not_shed_meets_the_objective() -> None:
    cost, limits = Cost(0.13e-3, 1.2e-3), Limits()
    items = arrivals_of("poisson", cost, 3.0, 3000, seed=1)
    known = CostModel(cost.per_token, cost.fixed)
    served = simulate(Policy(limits, known), limits, items, cost, seed=1, shed=True)
    assert served.shed > 0
    assert statistics.quantiles(served.latencies, n=100)[94] <= limits.latency * 1.2  # runs differ by a tenth
    assert simulate(Policy(limits), limits, items, cost, seed=1, shed=False).shed == 0


def test_a_random_history_never_breaks_a_plan() -> None:
    rng = random.Random(0)
    chosen = Policy(Limits(max_batch=4, latency=0.02))
    now = 0.0
    for _ in range(500):
        now += rng.choice((0.0, 1e-4, 0.001, 0.5))
        chosen.arrived(rng.randint(1, 128), now)
        plan = chosen.plan([rng.randint(1, 128) for _ in range(rng.randint(1, 9))], now, now)
        chosen.began(100, now)
        chosen.ended(100, rng.choice((None, 0.0, 0.001, 3.0)))
        assert plan.until is None or now < plan.until <= now + 0.02


@pytest.mark.parametrize("limits", [Limits(max_batch=0), Limits(max_tokens=0)])
def test_bounds_below_one_are_refused(limits: Limits) -> None:
    with pytest.raises(InvalidInput, match="at least 1"):
        Policy(limits)


@pytest.mark.parametrize("latency", [0.0, -1.0, float("nan")])
def test_an_objective_that_is_no_time_is_refused(latency: float) -> None:
    with pytest.raises(InvalidInput, match="latency"):
        Policy(Limits(latency=latency))
