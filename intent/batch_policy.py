"""What runs next, and when: the pure part of batching.

Nothing here waits or looks at a clock: every method is told the time. Times are seconds on one clock, sizes are tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import ceil, inf
from typing import Final

from msgspec import Struct

from intent.batch_cost import CostModel
from tasks.errors import InvalidInput

WINDOW: Final = 8
"""A batch is chosen from this many batches' worth of those that waited longest: that bounds the choosing."""
_ARRIVALS: Final = 64
"""So many of the last arrivals say what is to be expected."""
_HITS: Final = 16
"""A hold must have paid after so many of them: fewer may be chance."""
_MARGIN: Final = 0.1
"""And have saved this share of what it could at most: less is noise."""
_GRAIN: Final = 0.001
"""No event loop holds for less, in seconds."""
_TOKENS_RATE: Final = 0.05


class Limits(Struct, frozen=True):
    """What a batch may hold, and the objective.

    ``max_tokens`` bounds the longest item times the count; an item that is longer runs alone. ``latency`` is the
    objective in seconds, from arrival to answer.
    """

    max_batch: int = 32
    max_tokens: int = 4096
    latency: float = 0.05

    def checked(self) -> Limits:
        """Return these limits; raise :class:`InvalidInput` where nothing could run within them."""
        if self.max_batch < 1 or self.max_tokens < 1:
            raise InvalidInput(f"max_batch and max_tokens: must be at least 1, are {self.max_batch}, {self.max_tokens}")
        if not self.latency > 0:
            raise InvalidInput(f"latency: must be above 0 seconds, is {self.latency}")
        return self


class Plan(Struct, frozen=True):
    """The places of the next batch among those that wait, in order; the first is always in it.

    ``until`` is None where it runs now, else when it runs unless something arrives before.
    """

    places: list[int]
    until: float | None = None


class Arrivals:
    """What is to be expected, by what came last."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_ARRIVALS)
        self.tokens = 0.0
        """The size to expect."""

    def saw(self, tokens: int, now: float) -> None:
        """Count an item of ``tokens`` that arrived at ``now``."""
        if self._times:
            self.tokens += _TOKENS_RATE * (tokens - self.tokens)
        else:
            self.tokens = float(tokens)
        self._times.append(now)

    def ahead(self, now: float, seconds: float) -> list[tuple[float, int]]:
        """Return what may come, by what came after each past arrival: ``(wait, followers)``, the shortest wait first.

        ``wait`` is the time from ``now`` to the next arrival, ``followers`` how many came within ``seconds``, that one
        included. Past gaps that are shorter than the present one is already are left out: empty where nothing is
        expected.
        """
        if not self._times:
            return []
        times = list(self._times)
        elapsed = now - times[-1]
        found, end = [], 0
        for place, at in enumerate(times):
            if at + seconds > now:
                break
            while end < len(times) and times[end] <= at + seconds:
                end += 1
            if place + 1 < len(times) and times[place + 1] - at > elapsed:
                found.append((times[place + 1] - at - elapsed, end - place - 1))
        return sorted(found)


class Policy:
    """Decides for one server that runs one batch at a time.

    What waits runs as soon as the server is free. It is held for more only where the gaps between the last arrivals
    say that this lowers the latency of those concerned: those who wait, the one that is expected, and those who
    come while the batch runs. Among independent arrivals that is never so, whatever the costs; it is in short trains
    of arrivals where a run's fixed cost is large. The objective bounds every hold.
    """

    def __init__(self, limits: Limits, cost: CostModel | None = None) -> None:
        """Keep ``limits``; ``cost`` is what is known of run times, by default nothing.

        Raises:
            InvalidInput: nothing could run within ``limits``.
        """
        self.limits = limits.checked()
        self.cost = cost or CostModel()
        self.arrivals = Arrivals()
        self._free_at = -inf

    def arrived(self, tokens: int, now: float) -> None:
        """Count an item of ``tokens`` that came at ``now``."""
        self.arrivals.saw(tokens, now)

    def began(self, tokens: int, now: float) -> None:
        """Say that a batch of ``tokens``, padding included, runs."""
        self._free_at = now + self.cost.seconds(tokens)

    def ended(self, tokens: int, seconds: float | None) -> None:
        """Say that the batch of ``tokens`` is over, after ``seconds``; None where that time means nothing."""
        self._free_at = -inf
        if seconds is not None:
            self.cost.observe(tokens, seconds)

    def plan(self, lengths: Sequence[int], oldest: float, now: float, *, hold: bool = True) -> Plan:
        """Return what runs next of items with ``lengths``, in the order of their arrival; there must be one.

        ``oldest`` is when the first of them arrived. Without ``hold`` it runs now.
        """
        places = self._choose(lengths)
        if hold and len(places) == len(lengths) < self.limits.max_batch:
            seconds = self._hold(len(places), max(lengths), oldest, now)
            if seconds > 0:
                return Plan(places, now + seconds)
        return Plan(places)

    def expected(self, tokens: int, waiting: Sequence[tuple[int, float]], now: float) -> float:
        """Return the latency, in seconds, of the batch that an item of ``tokens`` would be in which arrives at ``now``.

        It is that of the batch's oldest item, which the others make late. ``waiting`` are the tokens of those in front,
        and when they arrived. The forecast is that of the batches that would run if nothing else came: who comes later
        may overtake. Where it is beyond the objective it may be less than the whole; it is 0 where costs are unknown.
        """
        if not self.cost.known:
            return 0.0
        total = max(self._free_at - now, 0.0)
        left = [*waiting, (tokens, now)]
        mine = len(waiting)
        while total <= self.limits.latency:
            places = self._choose([length for length, _ in left])
            total += self.cost.seconds(max(left[place][0] for place in places) * len(places))
            if places[-1] == mine:
                return total + now - left[places[0]][1]
            taken = set(places)
            left = [item for place, item in enumerate(left) if place not in taken]
            mine -= len(places)
        return total

    def _choose(self, lengths: Sequence[int]) -> list[int]:
        """Return the places, in order, of the first item and of the nearest to it in length that had better join it.

        One joins where the padding that it brings costs less than a run of its own.
        """
        chosen, longest = [0], lengths[0]
        worth = self.cost.fixed_in_tokens
        reach = min(len(lengths), WINDOW * self.limits.max_batch)
        for place in sorted(range(1, reach), key=lambda place: abs(lengths[place] - lengths[0])):
            if len(chosen) == self.limits.max_batch:
                break
            length = lengths[place]
            padding = longest - length if length < longest else (length - longest) * len(chosen)
            if padding <= worth and max(longest, length) * (len(chosen) + 1) <= self.limits.max_tokens:
                chosen.append(place)
                longest = max(longest, length)
        return sorted(chosen)

    def _hold(self, count: int, longest: int, oldest: float, now: float) -> float:
        """Return for how many seconds a batch of all ``count`` that wait had better be held for one more."""
        # One more joins at the cost of its tokens, which all wait for, and is spared a run's fixed cost.
        gain = self.cost.fixed - count * self.cost.per_token * self.arrivals.tokens
        if gain <= 0 or not self.cost.known:
            return 0.0
        longest = max(longest, ceil(self.arrivals.tokens))
        if longest * (count + 1) > self.limits.max_tokens:
            return 0.0
        runs = self.cost.seconds(longest * (count + 1))
        limit = min(oldest + self.limits.latency - runs - now, gain / (count + 1))
        return _best_hold(self.arrivals.ahead(now, runs), gain, count, limit) if limit >= _GRAIN else 0.0


def _best_hold(ahead: Sequence[tuple[float, int]], gain: float, count: int, limit: float) -> float:
    """Return the hold of at most ``limit`` seconds that would have saved most over ``ahead``; 0 for none.

    An arrival within the hold saves ``gain`` seconds. The hold delays the ``count`` that wait, and whoever comes while
    the batch runs.
    """
    best_hold = paid = 0.0
    most = _MARGIN * gain * len(ahead)
    missed = sum(count + followers for _, followers in ahead)
    for hits, (wait, followers) in enumerate(ahead, 1):
        if wait > limit:
            break
        paid += (count + max(followers, 1)) * wait
        missed -= count + followers
        hold = max(wait, _GRAIN)
        saved = hits * gain - paid - missed * hold
        if saved > most and hits >= _HITS:
            best_hold, most = hold, saved
    return best_hold
