"""Arrivals for a simulation: from a file, or made up."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import msgspec
import numpy as np

from scaling.simulate import Array
from tasks.contracts.base import told
from tasks.errors import InvalidInput

BUILT_IN = ("office-day", "bursts", "lone")
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
    hours = 24 if name == "office-day" else 6
    times = np.arange(int(hours * 3600 / tick)) * tick
    if name == "lone":
        return np.where(np.arange(len(times)) % int(3600 / tick) == int(600 / tick), 1.0, 0.0)
    if name == "bursts":
        per_second = np.where((times % 1800) < 60, 40.0, 0.0)
    else:
        per_second = 8.0 * np.clip(np.sin((times / 3600 - 7) / 12 * np.pi), 0, None) ** 2
    return rng.poisson(per_second * tick).astype(float)
