"""Turn a network's scores into probabilities that mean what they say, and choose where to abstain."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_COLDEST: Final = 0.05
_HOTTEST: Final = 20.0
_ROUNDS: Final = 60


def softmax(logits: NDArray[np.float64], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return probabilities ``[n, labels]`` of ``logits`` ``[n, labels]`` divided by ``temperature``."""
    import numpy as np

    scaled = logits / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return result


def log_loss(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """Return the mean negative log likelihood (nats) of the ``truth`` (label numbers, ``[n]``)."""
    import numpy as np

    chosen = probabilities[np.arange(len(truth)), truth]
    return float(-np.log(np.clip(chosen, 1e-12, 1.0)).mean())


def fit_temperature(logits: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """Return the temperature, 0.05..20, at which ``logits`` ``[n, labels]`` fit ``truth`` ``[n]`` best.

    The loss has one valley along the temperature: golden-section search on its logarithm finds it.
    """
    ratio = (math.sqrt(5) - 1) / 2
    low, high = math.log(_COLDEST), math.log(_HOTTEST)

    def loss(place: float) -> float:
        return log_loss(softmax(logits, math.exp(place)), truth)

    for _ in range(_ROUNDS):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def choose_threshold(confidences: NDArray[np.float64], in_scope: NDArray[np.bool_], max_abstained: float) -> float:
    """Return the highest threshold that abstains from at most ``max_abstained`` (0..1) of what is in scope.

    ``confidences`` ``[n]`` are the highest probabilities of each text; the answer is rounded down to a
    hundredth, so that it does not sit on one text's very probability. Without anything in scope it is 0.
    """
    import numpy as np

    inside = np.sort(confidences[in_scope])
    if len(inside) == 0:
        return 0.0
    allowed = min(int(max_abstained * len(inside)), len(inside) - 1)
    return math.floor(float(inside[allowed]) * 100) / 100
