"""A canary beside the version that it may replace: who gets it, what both said, and how the two compare."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, Protocol

from tasks.errors import StoreError
from tasks.log import get_logger

log = get_logger()

STABLE: Final = "stable"
CANARY: Final = "canary"
SIDES: Final = (STABLE, CANARY)
KEEP_SECONDS: Final = 7 * 24 * 3600
"""Counts are forgotten so long after the last one."""
_MILLIONTHS: Final = 1_000_000
_STEP: Final = 1.1
_BOUNDS: Final = tuple(round(0.1 * _STEP**power, 4) for power in range(121))
"""Upper bounds of the histogram's buckets, in milliseconds: 0.1 to 9,300, each a tenth above the last."""


def gets_canary(version: str, request_id: str, share: float) -> bool:
    """Tell whether a request is in the ``share`` (0..1) of ``version``: always the same, for every delivery of it.

    Who is in a share is in every greater share of the same version too.
    """
    digest = hashlib.blake2b(f"{version}/{request_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2.0**64


class Counts(Protocol):
    """Where the counts of all workers come together, see :class:`tasks.stores.board.Board`."""

    async def add(self, key: str, counts: Mapping[str, int], *, keep_seconds: int) -> None:
        """Add ``counts`` to those at ``key``."""


class Tally:
    """Counts of what both sides said, by the key of their trial. Bounded: two sides, their labels and buckets."""

    def __init__(self) -> None:
        self._trials: dict[str, Counter[str]] = {}

    def saw(
        self, trial: str, side: str, label: str, confidence: float, milliseconds: float, *, abstained: bool
    ) -> None:
        """Count one answer; ``confidence`` is within 0..1."""
        counts = self._trials.setdefault(trial, Counter())
        counts[f"{side}:n"] += 1
        counts[f"{side}:confidence"] += round(confidence * _MILLIONTHS)
        counts[f"{side}:label:{label}"] += 1
        counts[f"{side}:ms:{min(bisect_left(_BOUNDS, milliseconds), len(_BOUNDS) - 1)}"] += 1
        if abstained:
            counts[f"{side}:abstained"] += 1

    async def flush(self, where: Counts) -> None:
        """Add what was counted to what is there. What cannot be added is kept for the next time."""
        taken, self._trials = self._trials, {}
        for trial, counts in taken.items():
            try:
                await where.add(trial, counts, keep_seconds=KEEP_SECONDS)
            except StoreError as error:
                self._trials.setdefault(trial, Counter()).update(counts)
                log.warning("canary counts not passed on, trying again", error=str(error))


def side(counts: Mapping[str, int], name: str) -> dict[str, Any]:
    """Return the figures of one side: requests, confidence, abstained (0..1), labels (0..1 each), p50_ms, p99_ms.

    The times are upper bounds of their buckets, at most a tenth too high. Without requests all but the count are None.
    """
    n = counts.get(f"{name}:n", 0)
    head = f"{name}:label:"
    labels = {key.removeprefix(head): count / n for key, count in sorted(counts.items()) if key.startswith(head)}
    return {
        "requests": n,
        "confidence": counts.get(f"{name}:confidence", 0) / _MILLIONTHS / n if n else None,
        "abstained": counts.get(f"{name}:abstained", 0) / n if n else None,
        "labels": labels,
        "p50_ms": _quantile(counts, name, 0.5) if n else None,
        "p99_ms": _quantile(counts, name, 0.99) if n else None,
    }


def compare(counts: Mapping[str, int]) -> dict[str, Any]:
    """Return both sides, the difference of each label's share, and their distance (0..1: half the sum of those)."""
    sides = {name: side(counts, name) for name in SIDES}
    labels = [sides[name]["labels"] for name in SIDES]
    both = sorted({*labels[0], *labels[1]})
    differences = {label: labels[1].get(label, 0.0) - labels[0].get(label, 0.0) for label in both}
    known = all(sides[name]["requests"] for name in SIDES)
    return {
        **sides,
        "differences": differences if known else {},
        "distance": sum(map(abs, differences.values())) / 2 if known else None,
    }


def _quantile(counts: Mapping[str, int], name: str, quantile: float) -> float:
    head = f"{name}:ms:"
    buckets = sorted((int(key.removeprefix(head)), count) for key, count in counts.items() if key.startswith(head))
    left = quantile * sum(count for _, count in buckets)
    for bucket, count in buckets:
        left -= count
        if left <= 0:
            return _BOUNDS[bucket]
    return _BOUNDS[-1]
