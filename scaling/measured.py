"""Service times for a simulation, from results of requests that were done."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, pstdev

import msgspec

from scaling.simulate import Service
from tasks import keys
from tasks.contracts.base import told
from tasks.errors import InvalidInput


class _Timings(msgspec.Struct):
    classify_ms: float | None = None
    agent_ms: float | None = None


class _Agent(msgspec.Struct):
    type: str | None = None


class _Result(msgspec.Struct):
    timings: _Timings
    agent: _Agent | None = None


def service_of(file: Path, pool: str) -> Service:
    """Return how long ``pool`` took, by the results in ``file``: one a line, as ``sluice result --json`` has them.

    Raises:
        InvalidInput: a line is no result, or none tells of this pool.
    """
    seconds = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            result = msgspec.json.decode(line, type=_Result)
        except msgspec.DecodeError as error:
            raise InvalidInput(f"{file}: line {number}: {told(error)}") from error
        took = _milliseconds(result, pool)
        seconds += [took / 1000] if took else []
    if not seconds:
        raise InvalidInput(f"{file}: no result tells how long pool {pool} took")
    mean = fmean(seconds)
    return Service(mean, pstdev(seconds) / mean)


def _milliseconds(result: _Result, pool: str) -> float | None:
    if pool == keys.INTENT_POOL:
        return result.timings.classify_ms
    ours = result.agent and result.agent.type and keys.agent_pool(result.agent.type) == keys.base_pool(pool)
    return result.timings.agent_ms if ours else None
