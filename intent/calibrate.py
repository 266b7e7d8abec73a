"""Turn a network's scores into probabilities that mean what they say, and choose where to abstain."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ROUNDS: Final = 40


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


def lowest(loss: Callable[[float], float], low: float, high: float, *, logarithmic: bool = False) -> float:
    """Return where ``loss``, which has one valley between ``low`` and ``high``, is lowest; by golden-section search.

    With ``logarithmic`` along the logarithm: for what is above nothing and may be of any size.
    """
    ratio = (math.sqrt(5) - 1) / 2
    place = math.exp if logarithmic else float
    if logarithmic:
        low, high = math.log(low), math.log(high)
    for _ in range(_ROUNDS):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(place(left)) <= loss(place(right)):
            high = right
        else:
            low = left
    return place((low + high) / 2)


def choose_threshold(
    probabilities: NDArray[np.float64], truth: NDArray[np.int64], outside: int | None, wrong_cost: float
) -> float:
    """Return the threshold, in hundredths, at which mistakes cost least.

    Of ``probabilities`` ``[n, labels]`` the highest decides, if it is not below the threshold; else the answer is
    that the text is out of scope, which is label number ``outside``, if there is one. ``truth`` ``[n]`` are label
    numbers. A text that is answered wrongly costs ``wrong_cost``, one that had an answer and got none costs 1. The
    middle one of several equals is returned: neither end of a range in which these texts do not differ means anything.
    """
    import numpy as np

    confidence, answer = probabilities.max(axis=1), probabilities.argmax(axis=1)
    steps = np.arange(100) / 100
    abstained = (confidence[None, :] < steps[:, None]) | (answer == outside)
    wrong = ~abstained & (answer != truth)
    missed = abstained & (truth != outside)
    costs = wrong_cost * wrong.sum(axis=1) + missed.sum(axis=1)
    equals = np.flatnonzero(costs == costs.min())
    return float(steps[equals[len(equals) // 2]])
