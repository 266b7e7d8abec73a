"""Temperature and threshold on made-up scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intent.calibrate import choose_threshold, log_loss, lowest, softmax


def test_softmax_sums_to_one_and_survives_large_scores() -> None:
    result = softmax(np.array([[1000.0, 0.0], [0.0, 0.0]]))
    assert result.tolist() == [[1.0, 0.0], [0.5, 0.5]]


@pytest.mark.parametrize("factor", [0.25, 1.0, 4.0])
def test_the_lowest_loss_is_at_the_temperature_that_undoes_a_factor(factor) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, 4)) * 2
    truth = np.array([random.choice(4, p=row) for row in softmax(logits)])
    fitted = lowest(lambda t: log_loss(softmax(logits * factor, t), truth), 0.05, 20, logarithmic=True)
    assert fitted == pytest.approx(factor, rel=0.1)


@given(st.floats(-40, 40))
def test_the_lowest_point_of_a_valley_is_found(place) -> None:
    assert lowest(lambda x: abs(x - place), -50, 50) == pytest.approx(place, abs=1e-4)


PROBABILITIES = np.array([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.55, 0.45, 0.0], [0.2, 0.1, 0.7]])


@pytest.mark.parametrize(
    ("truth", "cost", "threshold"),
    [
        ([0, 0, 0, 2], 2.0, 0.28),  # all are right: anything up to the least sure will do
        ([0, 0, 1, 2], 2.0, 0.58),  # one is wrong, and the least sure
        ([0, 1, 0, 2], 1.5, 0.28),  # to spare the wrong one would cost a right one more than it is worth
        ([0, 1, 0, 2], 3.0, 0.76),
        ([0, 2, 2, 2], 1.0, 0.76),  # out of scope, and not recognised by the label alone
    ],
)
def test_the_threshold_weighs_wrong_answers_against_missing_ones(truth, cost, threshold) -> None:
    assert choose_threshold(PROBABILITIES, np.array(truth), 2, cost) == threshold


@given(st.integers(0, 1000), st.floats(1, 10))
def test_no_threshold_in_hundredths_costs_less(seed, cost) -> None:
    random = np.random.default_rng(seed)
    probabilities, truth = softmax(random.normal(size=(20, 3)) * 3), random.integers(0, 3, 20)

    def total(threshold) -> float:
        best = probabilities.argmax(axis=1)
        said = np.where(probabilities.max(axis=1) >= threshold, best, 2)
        return (np.where(said == truth, 0, np.where(said == 2, 1, cost))).sum()

    chosen = choose_threshold(probabilities, truth, 2, cost)
    assert total(chosen) <= min(total(step / 100) for step in range(100)) + 1e-9
