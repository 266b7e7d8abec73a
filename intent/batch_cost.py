"""How long a batch runs, learned while batches run."""

from __future__ import annotations

from math import inf
from typing import Final

_FORGET: Final = 0.98
"""What an observation weighs after the next one: about the last fifty count."""
_FIXED_TOKENS: Final = 8.0
"""The fixed cost of a run, in tokens, as long as all runs were alike and do not tell."""
_ALIKE: Final = 0.05
"""Sizes that differ by this share of their mean tell as much as the assumption above."""
_CLIP: Final = 3.0
_CLIP_LEAST: Final = 0.1
_SCALE_RATE: Final = 0.1
_KNOWN: Final = 8


class CostModel:
    """Fits ``seconds = per_token · tokens + fixed`` to what was observed.

    Tokens are those of the padded batch, longest times count: they, not the count, are what is computed. Old
    observations fade. One that is far off counts only in part: what stole the processor once says little about the
    next run. Where all of them are so, the model follows.
    """

    def __init__(self, per_token: float = 0.0, fixed: float = 0.0) -> None:
        """Begin with what is known, in seconds: zeros where nothing is."""
        self.per_token = per_token
        self.fixed = fixed
        self._seen = _KNOWN if per_token or fixed else 0
        self._weight = self._n = self._t = self._nn = self._nt = 0.0
        self._scale = 0.0
        self._doubt = 1.0

    @property
    def known(self) -> bool:
        """Return whether enough was observed to rely on."""
        return self._seen >= _KNOWN

    @property
    def fixed_in_tokens(self) -> float:
        """Return how many tokens cost as much as the fixed part of a run."""
        if not self._seen:
            return _FIXED_TOKENS
        return self.fixed / self.per_token if self.per_token > 0 else inf

    def seconds(self, tokens: int) -> float:
        """Return how long a batch of ``tokens``, padding included, will run: 0 where nothing is known."""
        return self.per_token * tokens + self.fixed

    def observe(self, tokens: int, seconds: float) -> None:
        """Learn that a batch of ``tokens``, padding included, ran for ``seconds``."""
        if self._weight:
            seconds = self._clipped(tokens, seconds)
        else:
            self._scale = seconds / 2
        self._seen += 1
        self._weight = _FORGET * self._weight + 1
        self._n = _FORGET * self._n + tokens
        self._t = _FORGET * self._t + seconds
        self._nn = _FORGET * self._nn + tokens * tokens
        self._nt = _FORGET * self._nt + tokens * seconds
        self._fit()

    def _clipped(self, tokens: int, seconds: float) -> float:
        expected = self.seconds(tokens)
        if seconds < expected / 2:
            # A run can be slow by accident, but not fast: it is the model that is off.
            self._fade(0.5)
            return seconds
        far = abs(tokens - self._n / self._weight) * self.per_token * self._doubt
        bound = max(_CLIP * (self._scale + far), _CLIP_LEAST * expected)
        off = min(max(seconds - expected, -bound), bound)
        self._scale += _SCALE_RATE * (abs(off) - self._scale)
        return expected + off

    def _fade(self, factor: float) -> None:
        self._weight *= factor
        self._n *= factor
        self._t *= factor
        self._nn *= factor
        self._nt *= factor

    def _fit(self) -> None:
        tokens, seconds = self._n / self._weight, self._t / self._weight
        spread = max(self._nn / self._weight - tokens * tokens, 0.0)
        together = self._nt / self._weight - tokens * seconds
        # Least squares, drawn to the assumed proportion as far as sizes were too alike to tell.
        assumed = seconds / (tokens + _FIXED_TOKENS)
        ridge = (_ALIKE * tokens) ** 2 or 1.0
        self._doubt = ridge / (spread + ridge)
        slope = (together + ridge * assumed) / (spread + ridge)
        self.per_token = min(max(slope, 0.0), seconds / tokens if tokens else 0.0)
        self.fixed = max(seconds - self.per_token * tokens, 0.0)
