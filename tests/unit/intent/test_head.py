"""What is fitted on the encoder's vectors: distance, linear head, calibration."""

import numpy as np
import pytest

from intent.calibrate import log_loss, softmax
from intent.directory import head_numbers
from intent.distance import measure
from intent.head import Head, calibrated, fit_linear

HIDDEN, LABELS, OUTSIDE = 6, 3, 2


def clouds(seed: int, each: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of two labels in tight clouds, and of one that lies anywhere."""
    random = np.random.default_rng(seed)
    centres = np.eye(HIDDEN)[:2] * 4
    tight = [centre + random.normal(size=(each, HIDDEN)) * 0.5 for centre in centres]
    anywhere = random.normal(size=(each // 4, HIDDEN)) * 6
    truth = np.repeat([0, 1, OUTSIDE], [each, each, each // 4])
    return np.concatenate([*tight, anywhere]).astype(np.float32), truth


def served(head: Head, vectors: np.ndarray) -> np.ndarray:
    """Compute what the graph computes, from its numbers."""
    numbers = head_numbers(head)
    turned = vectors @ numbers["far_basis"]
    far = (turned**2).sum(1) + (turned @ numbers["far_centres"] + numbers["far_offsets"]).min(1)
    return softmax(vectors @ numbers["head_weight"] + numbers["head_bias"] + far[:, None] * numbers["far_outside"])


def test_the_distance_is_about_one_where_it_was_measured_and_grows_outwards() -> None:
    vectors, truth = clouds(0)
    inside = truth != OUTSIDE
    distance = measure(vectors[inside], truth[inside])
    assert distance.of(vectors[inside]).mean() == pytest.approx(1, rel=0.01)
    assert (distance.of(vectors[inside] * 10) > distance.of(vectors[inside])).all()


def test_the_distance_does_not_depend_on_the_scale_of_a_direction() -> None:
    vectors, truth = clouds(1)
    inside = truth != OUTSIDE
    stretched = vectors * np.float32(7)
    near, far = (measure(v[inside], truth[inside]).of(v) for v in (vectors, stretched))
    assert near == pytest.approx(far, rel=1e-3)


def test_a_head_tells_the_labels_apart_and_learns_rare_ones() -> None:
    vectors, truth = clouds(2)
    weight, bias = fit_linear(vectors, truth, LABELS)
    assert (weight.shape, bias.shape) == ((LABELS, HIDDEN), (LABELS,))
    found = (vectors @ weight.T + bias).argmax(axis=1)
    assert (found == truth)[truth != OUTSIDE].mean() > 0.9


def test_calibration_with_the_distance_fits_better_than_without() -> None:
    known, fresh = clouds(3), clouds(4)
    linear = fit_linear(*known, LABELS)
    head = calibrated(linear, OUTSIDE, known, fresh)
    plain = calibrated(linear, None, known, fresh)
    assert log_loss(served(head, fresh[0]), fresh[1]) < log_loss(served(plain, fresh[0]), fresh[1])
    assert head.scale > 0


def test_the_numbers_of_a_graph_without_out_of_scope_leave_the_labels_alone() -> None:
    known, fresh = clouds(5), clouds(6)
    head = calibrated(fit_linear(*known, LABELS), None, known, fresh)
    weight, bias = head.linear
    assert served(head, fresh[0]) == pytest.approx(softmax((fresh[0] @ weight.T + bias) / head.temperature), abs=1e-6)
