"""How far a text lies from everything that was learnt, by the encoder's vectors: what is far is out of scope.

The distance is Mahalanobis's: to the nearest label's mean, in units of how much the texts of a label differ among
themselves. A softmax compares labels with each other only; this compares a text with all of them (Lee et al., 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_RIDGE: Final = 0.05
"""Of the mean variance, what is added to each direction: those that hardly vary would decide alone."""


@dataclass(frozen=True, slots=True)
class Distance:
    """``basis`` ``[hidden, hidden]`` turns vectors so that length counts; ``centres`` ``[hidden, k]``: turned means."""

    basis: NDArray[np.float64]
    centres: NDArray[np.float64]

    @property
    def offsets(self) -> NDArray[np.float64]:
        """Return the squared lengths of the centres, ``[k]``."""
        squared: NDArray[np.float64] = (self.centres**2).sum(axis=0)
        return squared

    def of(self, vectors: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the distance of each of ``vectors`` ``[n, hidden]``; about 1 for the texts that were learnt."""
        turned = vectors @ self.basis
        found: NDArray[np.float64] = (turned**2).sum(axis=1) + (self.offsets - 2 * turned @ self.centres).min(axis=1)
        return found


def measure(vectors: NDArray[np.float32], truth: NDArray[np.int64]) -> Distance:
    """Return the distance from the labels of ``vectors`` ``[n, hidden]``, whose numbers are in ``truth`` ``[n]``."""
    import numpy as np

    labels, places = np.unique(truth, return_inverse=True)
    means = np.stack([vectors[truth == label].mean(axis=0) for label in labels]).astype(np.float64)
    apart = vectors - means[places]
    spread = apart.T @ apart / len(apart)
    spread += _RIDGE * np.trace(spread) / len(spread) * np.eye(len(spread))
    basis = np.linalg.cholesky(np.linalg.inv(spread))
    plain = Distance(basis, (means @ basis).T)
    unit = 1 / np.sqrt(plain.of(vectors).mean())
    return Distance(basis * unit, plain.centres * unit)
