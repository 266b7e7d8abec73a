"""``sluice bench``: what the pipeline does, and takes, on this machine."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from handlers.cli.common import console, json_option, print_json, print_table, run, settings_of, teller

if TYPE_CHECKING:
    from handlers.bench.lab import Lab
    from handlers.bench.phases import Bar
    from handlers.bench.watch import Advance

_OPEN_SHARE: Final = 0.4
"""The rate of the open loop as a share of the burst's, where none is given: busy, and far from full."""


@dataclass(frozen=True)
class _Plan:
    """Which phases: ``depths`` alone, or a burst and an open loop. ``rate`` None: by the burst."""

    requests: int
    open_seconds: float
    rate: float | None
    depths: tuple[int, ...]
    timeout: float


def _depths(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Return the numbers of a list with commas; none where it was not given."""
    parts = [part.strip() for part in value.split(",")] if value is not None else []
    if not all(part.isdecimal() and int(part) for part in parts):
        raise click.BadParameter(f"{value!r} is not a list of numbers above zero, such as 100,1000,20000", ctx, param)
    return tuple(map(int, parts))


_COUNT = click.IntRange(min=1)
_ABOVE_ZERO = click.FloatRange(min=0, min_open=True)


@click.command()
@click.option("--requests", type=_COUNT, default=1000, show_default=True, help="How many make the burst.")
@click.option("--workers", type=_COUNT, default=2, show_default=True, help="Worker processes; each serves all pools.")
@click.option(
    "--concurrency", type=_COUNT, default=64, show_default=True, help="Requests at a time, by pool and worker."
)
@click.option("--latency", type=click.FloatRange(min=0), help="Seconds that the canned model takes.  [default: 0]")
@click.option("--model", help="A model of the settings in place of the canned answer.")
@click.option(
    "--open-seconds",
    type=click.FloatRange(min=0),
    default=10,
    show_default=True,
    help="How long requests come by the clock, to see latencies; 0 leaves it out.",
)
@click.option("--rate", type=_ABOVE_ZERO, help="Requests per second by the clock.  [default: 40% of the burst's]")
@click.option("--depths", metavar="N,N,...", callback=_depths, help="Measure drains of queues this deep instead.")
@click.option("--here", is_flag=True, help="On the servers of the settings, not on own ones.")
@click.option("--keep", is_flag=True, help="Leave the temporary folder: logs, and results and audit of own servers.")
@click.option(
    "--timeout", type=_ABOVE_ZERO, default=600, show_default=True, help="Seconds for the results of one phase."
)
@json_option
@click.pass_context
def bench(
    ctx: click.Context, /, *, requests: int, workers: int, concurrency: int, latency: float | None, model: str | None,
    open_seconds: float, rate: float | None, depths: tuple[int, ...], here: bool, keep: bool, timeout: float,
    as_json: bool,
) -> None:  # fmt: skip
    """Measure the two-hop pipeline on this machine: requests per second, CPU, latency, memory.

    Every request is classified, answered by its agent type, audited, and ends in a result that is created once. A
    canned answer stands in for the model, so that the pipeline is what is measured.

    The bench starts worker processes and, in a temporary folder, a Redis and an S3 server of its own, and deletes
    them at the end: a running stack and its queues are not touched. --here uses the servers of the settings instead.
    It is refused where requests wait or workers run there, since either would take the other's work; an autoscaler
    must be off. The results and audit records of its tenant "bench" stay there, and after Ctrl-C its requests too.
    """
    from handlers.bench.lab import Order, bench_settings, open_lab
    from handlers.bench.watch import refuse_if_busy

    _check(latency, model, rate, open_seconds, depths)
    settings = bench_settings(settings_of(ctx), model=model, latency=latency or 0, concurrency=concurrency)
    plan = _Plan(requests, open_seconds, rate, depths, timeout)
    with _terminable():
        if here:
            run(refuse_if_busy(settings))
        with open_lab(settings, Order(workers, here, keep), teller(quiet=as_json)) as lab:
            document = run(_measure(lab, plan))
    document["given"] = {
        "workers": workers,
        "concurrency": concurrency,
        "model": model or "canned",
        "latency_s": latency or 0,
        "servers": "of the settings" if here else "embedded",
    }
    if as_json:
        print_json(document)
    else:
        _show(document, here=here)


def _check(
    latency: float | None, model: str | None, rate: float | None, open_seconds: float, depths: tuple[int, ...]
) -> None:
    if latency is not None and model is not None:
        raise click.UsageError("--latency is that of the canned answer; --model asks a model")
    if rate is not None and (depths or not open_seconds):
        raise click.UsageError("--rate is that of requests by the clock, which --depths and --open-seconds 0 leave out")


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Have SIGTERM do what Ctrl-C does: without it every process that was started would stay.

    A shell starts what it puts into the background with SIGINT ignored; then both would do nothing.
    """
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT)),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _measure(lab: Lab, plan: _Plan) -> dict[str, Any]:
    from handlers.bench.phases import open_bench
    from handlers.bench.report import burst_document, depths_document

    with _progress() as bar:
        async with open_bench(lab, bar=bar, timeout=plan.timeout) as bench:
            meter = bench.watch.meter
            await bench.warm_up()
            if plan.depths:
                document = depths_document([await bench.depth(waiting) for waiting in plan.depths], meter)
            else:
                burst, loop = await bench.burst(plan.requests), None
                if plan.open_seconds:
                    loop = await bench.open_loop(plan.rate or _OPEN_SHARE * burst.rate, plan.open_seconds)
                document = burst_document(burst, loop, meter)
            await bench.watch.alone()
            return document


@contextlib.contextmanager
def _progress() -> Iterator[Bar]:
    """Yield what makes progress bars on standard error."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Drawing is CPU of this process, which is counted: twice a second is enough.
    with Progress(*columns, console=console(err=True), refresh_per_second=2) as progress:

        def bar(name: str, total: int) -> Advance:
            task = progress.add_task(name, total=total)
            return lambda done: progress.update(task, completed=done)

        yield bar


def _show(document: dict[str, Any], *, here: bool) -> None:
    from handlers.bench.report import burst_rows, depth_rows, notes, process_rows, title

    click.echo(title(document))
    if "depths" in document:
        columns = ("waiting", "req/s, middle", "req/s, whole drain", "CPU ms a request", "cores of others")
        print_table("Drains", columns, depth_rows(document))
    else:
        print_table("Figures", ("figure", "value"), burst_rows(document))
        print_table("Processes", ("process", "CPU ms a request", "memory MB"), process_rows(document))
    for note in notes(document, here=here):
        click.echo(note)
