"""How the figures of ``sluice bench`` are told: as one JSON document, and as rows of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from handlers.bench.figures import RATES, Burst, Depth, OpenLoop, cores_at, percentile, spread
from handlers.bench.meter import SUBMITTER, Meter, machine

_NOISE: Final = 0.05
"""What others may take, as a share of the machine, before the tables say that they did."""

Rows = list[tuple[str, str]]


def burst_document(burst: Burst, open_loop: OpenLoop | None, meter: Meter) -> dict[str, Any]:
    """Return the figures of a burst, and of the open loop where there was one. Times in seconds, memory in MB."""
    spent = burst.spent
    return {
        **_head(meter),
        "requests": burst.requests,
        "statuses": dict(burst.statuses),
        "seconds": _round(spent.seconds),
        "requests_per_s": _round(burst.rate),
        "cpu_s": _round(spent.cpu_seconds),
        "cpu_s_by_process": {name: _round(used) for name, used in spent.cpu.items()},
        "cpu_s_per_request": burst.cpu_per_request,
        "requests_per_cpu_s": _round(1 / burst.cpu_per_request),
        "cores_busy": _round(spent.cpu_seconds / spent.seconds),
        "cores_busy_by_others": _round(spent.others / spent.seconds),
        "observer_share": _round(burst.observer / spent.cpu_seconds),
        **{f"cores_at_{rate}": cores_at(rate, burst.cpu_per_request) for rate in RATES},
        "open_loop": _open_document(open_loop) if open_loop else None,
        "memory_mb": _memory(meter),
    }


def depths_document(depths: Sequence[Depth], meter: Meter) -> dict[str, Any]:
    """Return the figures of drains. ``spread`` is how far the least lies below the most, 0..1."""
    return {
        **_head(meter),
        "depths": [
            {
                "waiting": depth.waiting,
                "rounds": depth.rounds,
                "seconds": _round(depth.spent.seconds),
                "requests_per_s": _round(depth.rate),
                "requests_per_s_middle": _round(depth.middle_rate),
                "cpu_s_per_request": depth.cpu_per_request,
                "cores_busy_by_others": _round(depth.spent.others / depth.spent.seconds),
            }
            for depth in depths
        ],
        "spread": {
            "requests_per_s": _round(spread([depth.rate for depth in depths])),
            "requests_per_s_middle": _round(spread([depth.middle_rate for depth in depths])),
            "cpu_s_per_request": _round(spread([depth.cpu_per_request for depth in depths])),
        },
        "memory_mb": _memory(meter),
    }


def burst_rows(document: Mapping[str, Any]) -> Rows:
    """Return the rows (figure, value) of :func:`burst_document`."""
    statuses = ", ".join(f"{count} {status}" for status, count in document["statuses"].items())
    rows = [
        ("results", f"{document['requests']} of {document['requests']}: {statuses}"),
        ("requests per second", f"{document['requests_per_s']:.0f}"),
        ("requests per CPU-second", f"{document['requests_per_cpu_s']:.0f}"),
        ("CPU for one request", f"{document['cpu_s_per_request'] * 1000:.2f} ms"),
        ("cores busy", f"{document['cores_busy']:.2f} of {document['machine']['cores']}"),
    ]
    if open_loop := document["open_loop"]:
        rows += _open_rows(open_loop)
    rows += [
        (f"cores for {rate} requests per second", f"{document[f'cores_at_{rate}']:.1f}{_by_kind(document, rate)}")
        for rate in RATES
    ]
    return [*rows, ("memory, all together", f"{document['memory_mb']['total']:.0f} MB")]


def process_rows(document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the rows (process, CPU ms for one request, MB) of :func:`burst_document`."""
    memory = document["memory_mb"]["by_process"]
    return [
        (name, f"{used / document['requests'] * 1000:.2f}", f"{memory[name]:.0f}")
        for name, used in document["cpu_s_by_process"].items()
    ]


def depth_rows(document: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of :func:`depths_document`: one for each depth, and the spread."""
    rows = [
        (
            f"{depth['waiting']:,}" + (f" ({depth['rounds']} times)" if depth["rounds"] > 1 else ""),
            f"{depth['requests_per_s_middle']:.0f}",
            f"{depth['requests_per_s']:.0f}",
            f"{depth['cpu_s_per_request'] * 1000:.2f}",
            f"{depth['cores_busy_by_others']:.2f}",
        )
        for depth in document["depths"]
    ]
    keys = ("requests_per_s_middle", "requests_per_s", "cpu_s_per_request")
    return [*rows, ("spread", *(f"{document['spread'][key]:.0%}" for key in keys), "")]


def notes(document: Mapping[str, Any], *, here: bool) -> list[str]:
    """Return what a reader has to know to read the tables right."""
    told = [f"Counted: {', '.join(document['counted'])}; {SUBMITTER} is this process."]
    if here:
        told.append("Not counted: Redis, S3 and whatever model the settings name; they were not started here.")
    if "cores_at_500" in document:
        told.append(
            "Cores for a rate: the burst's CPU seconds of one request, of everything counted, times the rate. A worker "
            "process fills one core at most. Fewer requests at a time share fewer round trips and cost more each."
        )
        told.append(
            f"Seeing how many were done took {document['observer_share']:.1%} of the burst's CPU. Memory is the most "
            "resident at once; what processes share is counted in each."
        )
    else:
        told.append(
            "All waited before the workers, which were warm, were let go. Middle: from a tenth to nine tenths of a "
            "drain, at most 3,000 results. Where fewer wait than the workers take at once, results come in a bunch: "
            "the middle flatters, and the whole drain is mostly one request's latency. CPU is without submitting."
        )
    others = max(float(part["cores_busy_by_others"]) for part in document.get("depths", [document]))
    if others > _NOISE * document["machine"]["cores"]:
        told.append(
            f"Others kept {others:.2f} of the machine's {document['machine']['cores']} cores busy meanwhile: measure "
            "again on a quiet machine. Requests per second and latencies suffer most, CPU for one request least."
        )
    return told


def title(document: Mapping[str, Any]) -> str:
    """Return what was measured, and on what."""
    given, made = document["given"], document["machine"]
    model = given["model"] + (f" after {given['latency_s']:g} s" if given["latency_s"] else "")
    workers = f"{given['workers']} worker{'s' * (given['workers'] > 1)}"
    return (
        f"Two hops, {workers}, {given['concurrency']} at a time in each pool, model: {model}; "
        f"{made['cores']} cores, {made['processor']}, Python {made['python']}"
    )


def _head(meter: Meter) -> dict[str, Any]:
    return {"date": datetime.now(UTC).date().isoformat(), "machine": machine(), "counted": sorted(meter.names)}


def _open_document(loop: OpenLoop) -> dict[str, Any]:
    count = len(loop.latencies)
    return {
        "rate": _round(loop.rate),
        "seconds": loop.seconds,
        "requests": count,
        "statuses": dict(loop.statuses),
        "kept_up": loop.kept_up,
        "latency_p50_s": _round(percentile(loop.latencies, 0.5)),
        "latency_p99_s": _round(percentile(loop.latencies, 0.99)),
        "latency_max_s": _round(loop.latencies[-1]),
        "cpu_s_per_request": loop.spent.cpu_seconds / count,
        "cores_busy": _round(loop.spent.cpu_seconds / loop.spent.seconds),
        "cores_busy_by_others": _round(loop.spent.others / loop.spent.seconds),
    }


def _open_rows(loop: Mapping[str, Any]) -> Rows:
    at = f"at {loop['rate']:.3g} a second"
    rows = [
        (f"latency p50 {at}", f"{loop['latency_p50_s'] * 1000:.0f} ms"),
        (f"latency p99 {at}", f"{loop['latency_p99_s'] * 1000:.0f} ms"),
        (f"CPU for one request {at}", f"{loop['cpu_s_per_request'] * 1000:.2f} ms"),
    ]
    return rows if loop["kept_up"] else [*rows, ("", f"it did not keep up: latency grows with time {at}")]


def _by_kind(document: Mapping[str, Any], rate: int) -> str:
    """Return who of the processes needs the cores, such as ``(worker 1.6, redis 0.2)``."""
    kinds: dict[str, float] = {}
    for name, used in document["cpu_s_by_process"].items():
        kind = name.partition("-")[0]
        kinds[kind] = kinds.get(kind, 0) + cores_at(rate, used / document["requests"])
    most = sorted(kinds.items(), key=lambda item: -item[1])
    return f" ({', '.join(f'{kind} {cores:.1f}' for kind, cores in most if cores >= 0.05)})"


def _memory(meter: Meter) -> dict[str, Any]:
    by_process = {name: round(size / 2**20, 1) for name, size in meter.peaks.items()}
    return {"by_process": by_process, "total": round(meter.peak_total / 2**20, 1)}


def _round(value: float) -> float:
    """Return ``value`` with four digits that count: no clock here knows more."""
    return float(f"{value:.4g}")
