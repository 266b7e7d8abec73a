"""What turns the encoder's vectors into calibrated probabilities: a linear head, a temperature, and the distance.

All of it is fitted on vectors of the graph that will be served, in numpy: a new head for another set of labels takes
seconds, and no PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from intent.calibrate import log_loss, lowest, softmax
from intent.distance import Distance, measure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Linear = tuple[NDArray[np.float64], NDArray[np.float64]]
    """Weight ``[labels, hidden]`` and bias ``[labels]``."""

_ROUNDS: Final = 400
_RATE: Final = 0.05
_DECAY: Final = 1e-4
_SMOOTHING: Final = 0.05
_PASSES: Final = 4
_BOUNDS: Final = {"temperature": (0.05, 20.0), "scale": (0.01, 100.0), "shift": (-50.0, 50.0)}


@dataclass(frozen=True, slots=True)
class Head:
    """Logits are ``linear``, and divided by ``temperature``.

    That of label number ``outside`` grows by ``scale`` for each unit of distance, and by ``shift``. Without a label
    for what is out of scope it is ``None``.
    """

    linear: Linear
    distance: Distance
    outside: int | None
    temperature: float = 1.0
    scale: float = 0.0
    shift: float = 0.0

    def probabilities(self, vectors: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what the graph would for these ``vectors`` ``[n, hidden]``: probabilities ``[n, labels]``."""
        weight, bias = self.linear
        scores, far = vectors @ weight.T + bias, self.distance.of(vectors)
        moved = _moved(scores, far, self.outside, temperature=self.temperature, scale=self.scale, shift=self.shift)
        return softmax(moved)


def calibrated(
    linear: Linear,
    outside: int | None,
    known: tuple[NDArray[np.float32], NDArray[np.int64]],
    fresh: tuple[NDArray[np.float32], NDArray[np.int64]],
) -> Head:
    """Return the head whose probabilities fit the ``fresh`` examples best.

    Both are vectors ``[n, hidden]`` and label numbers ``[n]``; ``known`` is what was learnt.
    """
    vectors, truth = known
    inside = truth != outside
    distance = measure(vectors[inside], truth[inside])
    weight, bias = linear
    scores, far = fresh[0] @ weight.T + bias, distance.of(fresh[0])
    fitted = {"temperature": 1.0, "scale": 0.0, "shift": 0.0}

    def loss(field: str, value: float) -> float:
        return log_loss(softmax(_moved(scores, far, outside, **{**fitted, field: value})), fresh[1])

    fields = ("temperature",) if outside is None else ("scale", "shift", "temperature")
    for field in fields * _PASSES:
        low, high = _BOUNDS[field]
        fitted[field] = lowest(partial(loss, field), low, high, logarithmic=low > 0)
    return Head(linear, distance, outside, **fitted)


def _moved(
    scores: NDArray[np.float64],
    far: NDArray[np.float64],
    outside: int | None,
    *,
    temperature: float,
    scale: float,
    shift: float,
) -> NDArray[np.float64]:
    """Return logits ``[n, labels]`` from those of the linear head and the distances ``[n]``."""
    moved = scores / temperature
    if outside is not None:
        moved[:, outside] += (scale * far + shift) / temperature
    return moved


def fit_linear(vectors: NDArray[np.float32], truth: NDArray[np.int64], labels: int) -> Linear:
    """Fit a linear head by multinomial logistic regression.

    ``vectors`` ``[n, hidden]`` are the encoder's, ``truth`` ``[n]`` the numbers of the labels, of which each must
    occur; rare ones weigh as much as frequent ones. Deterministic: the loss is convex and starts at nothing.
    """
    import numpy as np

    mean, spread = vectors.mean(axis=0), vectors.std(axis=0) + 1e-6
    scaled = ((vectors - mean) / spread).astype(np.float64)
    share = 1 / np.bincount(truth, minlength=labels)[truth] / labels
    wanted = np.full((len(truth), labels), _SMOOTHING / labels)
    wanted[np.arange(len(truth)), truth] += 1 - _SMOOTHING
    weight, bias = np.zeros((labels, scaled.shape[1])), np.zeros(labels)
    moments = [np.zeros_like(weight), np.zeros_like(weight), np.zeros_like(bias), np.zeros_like(bias)]
    for step in range(1, _ROUNDS + 1):
        slope = (softmax(scaled @ weight.T + bias) - wanted) * share[:, None]
        rate = _RATE * (1 - step / (_ROUNDS + 1))
        weight -= rate * _adam(slope.T @ scaled + _DECAY * weight, moments[0], moments[1], step)
        bias -= rate * _adam(slope.sum(axis=0), moments[2], moments[3], step)
    weight /= spread
    return weight, bias - weight @ mean


def _adam(
    slope: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64], step: int
) -> NDArray[np.float64]:
    """Return the direction of Adam's ``step`` (from 1); ``first`` and ``second`` are its moments, changed in place."""
    first += 0.1 * (slope - first)
    second += 0.001 * (slope * slope - second)
    direction: NDArray[np.float64] = (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)) ** 0.5 + 1e-12)
    return direction
