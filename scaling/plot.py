"""Draws what replays showed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from scaling.simulate import Array, Outcome
from tasks.errors import NotReady

_POINTS: Final = 2000
"""More than a picture is wide: of a longer trace each point is the most of a stretch."""
_HOUR: Final = 3600.0


def draw(outcomes: Mapping[str, Outcome], file: Path, *, title: str) -> None:
    """Write a PNG to ``file``: replicas, waiting requests and their wait over time, of each way to scale.

    Raises:
        NotReady: the library that draws is not installed; the message names the extra.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NotReady("--png needs matplotlib: pip install 'sluice[plot]'") from error
    figure = Figure(figsize=(10, 8), layout="constrained")
    above, middle, below = figure.subplots(3, 1, sharex=True)
    for name, outcome in reversed([*outcomes.items()]):  # the first lies above the others
        hours = _most(np.arange(len(outcome.replicas), dtype=np.float64) * outcome.tick) / _HOUR
        above.step(hours, _most(outcome.replicas), where="post", label=name)
        middle.plot(hours, _most(outcome.waiting), label=name)
        below.plot(hours, _most(np.where(np.isfinite(outcome.waits), outcome.waits, np.nan)), label=name)
    for axes, label in ((above, "workers"), (middle, "requests waiting"), (below, "wait, s")):
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    above.legend(loc="upper right")
    below.set_xlabel("hours")
    figure.suptitle(title)
    figure.savefig(file, format="png", dpi=110)


def _most(values: Array) -> Array:
    """Return ``values`` as at most a picture's width of points."""
    width = max(-(-len(values) // _POINTS), 1)
    padded = np.pad(values, (0, -len(values) % width), mode="edge")
    most: Array = np.fmax.reduce(padded.reshape(-1, width), axis=1)
    return most
