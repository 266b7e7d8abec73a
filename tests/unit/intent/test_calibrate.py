"""Temperature and threshold on made-up scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intent.calibrate import choose_threshold, fit_temperature, log_loss, softmax


def test_softmax_sums_to_one_and_survives_large_scores() -> None:
    result = softmax(np.array([[1000.0, 0.0], [0.0, 0.0]]))
    assert result.tolist() == [[1.0, 0.0], [0.5, 0.5]]


@pytest.mark.parametrize("factor", [0.25, 1.0, 4.0])
def test_the_temperature_undoes_a_factor(factor) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, 4)) * 2
    truth = np.array([random.choice(4, p=row) for row in softmax(logits)])
    assert fit_temperature(logits * factor, truth) == pytest.approx(factor, rel=0.1)


@given(st.integers(0, 1000))
def test_the_fitted_temperature_is_no_worse_than_none(seed) -> None:
    random = np.random.default_rng(seed)
    logits, truth = random.normal(size=(30, 3)) * 5, random.integers(0, 3, 30)
    fitted = fit_temperature(logits, truth)
    assert log_loss(softmax(logits, fitted), truth) <= log_loss(softmax(logits), truth) + 1e-9


@given(st.lists(st.tuples(st.floats(0.125, 1), st.booleans()), min_size=1), st.floats(0, 0.5))
def test_the_threshold_abstains_from_at_most_so_many(rows, share) -> None:
    confidences, in_scope = np.array([c for c, _ in rows]), np.array([s for _, s in rows])
    threshold = choose_threshold(confidences, in_scope, share)
    assert 0 <= threshold <= 1
    assert (confidences[in_scope] < threshold).sum() <= share * in_scope.sum()


def test_the_threshold_ignores_what_is_out_of_scope() -> None:
    confidences = np.array([0.3, 0.9, 0.95, 0.99])
    assert choose_threshold(confidences, np.array([False, True, True, True]), 0.0) == 0.9
    assert choose_threshold(confidences, np.array([False] * 4), 0.0) == 0.0
