"""How often one tenant may call one process: a token bucket for each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import ceil
from typing import Final

from tasks.errors import QuotaExceeded

_TENANTS: Final = 10_000


class RateLimit:
    """``burst`` calls at once and ``per_second`` after that, for each name."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float]) -> None:
        """``clock`` gives seconds that never go back."""
        self._per_second = per_second
        self._burst = float(burst)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> None:
        """Count a call of ``name``; raise :class:`QuotaExceeded` where it is one too many."""
        now = self._clock()
        left, since = self._buckets.pop(name, (self._burst, now))
        left = min(left + (now - since) * self._per_second, self._burst)
        allowed = left >= 1
        self._buckets[name] = (left - allowed, now)
        if len(self._buckets) > _TENANTS:
            self._buckets.popitem(last=False)
        if not allowed:
            raise QuotaExceeded(
                f"too many calls of tenant {name}: {self._per_second:g} a second are allowed here",
                retry_seconds=ceil((1 - left) / self._per_second),
            )
