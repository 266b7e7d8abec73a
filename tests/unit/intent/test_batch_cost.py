"""What is learned of run times: the line, whatever disturbs it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intent.batch_cost import CostModel

PER_TOKEN = st.floats(1e-6, 1e-3)
FIXED = st.floats(1e-4, 2e-2)
RNG = st.builds(random.Random, st.integers(0, 1000))


def learned(per_token: float, fixed: float, rng: random.Random, runs: int = 300, noise: float = 0.0) -> CostModel:
    model = CostModel()
    for _ in range(runs):
        tokens = rng.randint(4, 800)
        model.observe(tokens, (per_token * tokens + fixed) * (1 + noise * rng.uniform(-1, 1)))
    return model


def test_nothing_is_known_at_first() -> None:
    model = CostModel()
    assert not model.known
    assert model.seconds(100) == 0
    assert model.fixed_in_tokens == 8


def test_what_is_given_is_known() -> None:
    model = CostModel(1e-4, 1e-3)
    assert model.known
    assert model.seconds(10) == pytest.approx(2e-3)
    assert model.fixed_in_tokens == pytest.approx(10)


@given(per_token=PER_TOKEN, fixed=FIXED, rng=RNG)
def test_the_fit_recovers_a_and_b(per_token: float, fixed: float, rng: random.Random) -> None:
    model = learned(per_token, fixed, rng)
    for tokens in (12, 100, 400, 800):
        assert model.seconds(tokens) == pytest.approx(per_token * tokens + fixed, rel=0.05)
    middle = per_token * 400 + fixed
    assert model.per_token * 400 == pytest.approx(per_token * 400, abs=0.05 * middle)
    assert model.fixed == pytest.approx(fixed, abs=0.05 * middle)


@given(per_token=PER_TOKEN, fixed=FIXED, rng=RNG)
def test_noise_and_a_few_runs_that_take_ten_times_as_long_hardly_matter(
    per_token: float, fixed: float, rng: random.Random
) -> None:
    model = CostModel()
    for _ in range(400):
        tokens = rng.randint(4, 800)
        slow = 10 if rng.random() < 0.05 else 1
        model.observe(tokens, (per_token * tokens + fixed) * slow * rng.uniform(0.9, 1.1))
    assert model.seconds(400) == pytest.approx(per_token * 400 + fixed, rel=0.2)


@given(cold=st.floats(2, 50))
def test_a_cold_first_run_is_soon_forgotten(cold: float) -> None:
    model = CostModel()
    model.observe(12, cold * 2.5e-3)
    for _ in range(15):
        model.observe(12, 2.5e-3)
    assert model.seconds(12) == pytest.approx(2.5e-3, rel=0.25)


@given(factor=st.floats(0.1, 8), rng=RNG)
def test_a_machine_that_changes_its_speed_is_followed(factor: float, rng: random.Random) -> None:
    model = learned(1e-4, 1e-3, rng)
    for _ in range(400):
        tokens = rng.randint(4, 800)
        model.observe(tokens, factor * (1e-4 * tokens + 1e-3))
    assert model.seconds(400) == pytest.approx(factor * 0.041, rel=0.1)


@given(tokens=st.integers(1, 500), seconds=st.floats(1e-4, 1))
def test_runs_that_are_all_alike_give_their_time_and_the_assumed_proportion(tokens: int, seconds: float) -> None:
    model = CostModel()
    for _ in range(50):
        model.observe(tokens, seconds)
    assert model.seconds(tokens) == pytest.approx(seconds)
    assert model.fixed_in_tokens == pytest.approx(8, rel=0.01)


@given(st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 10)), min_size=1, max_size=80))
def test_no_observation_makes_a_cost_negative_or_unknown(observed: list[tuple[int, float]]) -> None:
    model = CostModel()
    for tokens, seconds in observed:
        model.observe(tokens, seconds)
        assert model.per_token >= 0
        assert model.fixed >= -1e-9
        assert model.seconds(tokens) < 100
    assert model.fixed_in_tokens >= 0
