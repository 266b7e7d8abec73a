"""Arrivals for a simulation: from a file, or made up."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from scaling.simulate import Array
from tasks.contracts.base import told
from tasks.errors import InvalidInput

BUILT_IN = ("office-day", "bursts", "night-quiet", "steady", "talks", "lone")
_MOST_TICKS = 4_000_000


class _Arrival(msgspec.Struct, forbid_unknown_fields=True):
    """``count`` requests at ``time``, in seconds from the beginning."""

    time: float
    count: float = 1.0


def arrivals(trace: str, tick: float) -> Array:
    """Return the requests in each ``tick`` seconds of the built-in trace, or file, called ``trace``.

    A file has JSON lines, or CSV with a head: ``time`` in seconds, and ``count``.

    Raises:
        InvalidInput: there is no such trace, or a line of it is wrong; the message names the line.
    """
    if trace in BUILT_IN:
        return _made_up(trace, tick)
    file = Path(trace)
    if not file.is_file():
        raise InvalidInput(f"trace: {trace!r} is no file, and none of {', '.join(BUILT_IN)}")
    found = _read(file)
    last = max((arrival.time for arrival in found), default=0.0)
    if last / tick > _MOST_TICKS:
        raise InvalidInput(f"trace: {last:g} seconds are too many to replay in ticks of {tick:g}")
    made = np.zeros(int(last / tick) + 1)
    for arrival in found:
        made[int(arrival.time / tick)] += arrival.count
    return made


def _read(file: Path) -> list[_Arrival]:
    text = file.read_text()
    rows: list[object]
    try:
        if file.suffix == ".csv":
            rows = [dict(row) for row in csv.DictReader(io.StringIO(text))]
        else:
            rows = [msgspec.json.decode(line) for line in text.splitlines() if line.strip()]
    except msgspec.DecodeError as error:
        raise InvalidInput(f"{file}: {told(error)}") from error
    found = []
    for number, row in enumerate(rows, 1):
        try:
            arrival = msgspec.convert(row, _Arrival, strict=False)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"{file}: entry {number}: {told(error)}") from error
        if not (arrival.time >= 0 and arrival.count >= 0):
            raise InvalidInput(f"{file}: entry {number}: time and count must not be below 0")
        found.append(arrival)
    return found


def _made_up(name: str, tick: float) -> Array:
    rng = np.random.default_rng(7)
    hours = 24 if name in {"office-day", "night-quiet"} else 6
    times: Array = np.arange(int(hours * 3600 / tick), dtype=np.float64) * tick
    if name in _MOMENTS:
        moments = _MOMENTS[name](rng, hours)
        return np.bincount((moments / tick).astype(np.int64), minlength=len(times))[: len(times)].astype(float)
    return rng.poisson(_PER_SECOND[name](times) * tick).astype(float)


_PER_SECOND: Final[dict[str, Callable[[Array], Array]]] = {
    "office-day": lambda times: 8.0 * np.clip(np.sin((times / 3600 - 7) / 12 * np.pi), 0, None) ** 2,
    "bursts": lambda times: np.where((times + 1013) % 1807 < 60, 40.0, 0.0),
    "night-quiet": lambda times: np.where((times / 3600 >= 8) & (times / 3600 < 20), 0.5, 1 / 1200),
    "steady": lambda times: np.full(len(times), 3.0),
}
"""Requests a second: up to 8 at noon; 40 for a minute each half hour, never when a scaler looks; one in two seconds by
day and in twenty minutes by night; three all the time."""
_MOMENTS: Final[dict[str, Callable[[np.random.Generator, int], Array]]] = {
    "lone": lambda rng, hours: (np.arange(hours) + rng.random(hours)) * 3600,
    "talks": lambda rng, hours: (
        rng.random(4 * hours)[:, None] * hours * 3600 + np.cumsum(rng.exponential(30, (4 * hours, 6)), axis=1)
    ).ravel(),
}
"""Seconds: one request in each hour; four conversations an hour, each of six turns, half a minute apart on average."""
