"""``sluice scale``: manifests for Kubernetes, and what scaling rules would do with a load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import click

from handlers.cli.common import bar, json_option, print_json, print_table, settings_of

if TYPE_CHECKING:
    from scaling.kube.triggers import Broker
    from scaling.simulate import Costs, Outcome

_TICK: Final = 0.25
_SECONDS: Final = click.FloatRange(min=0, min_open=True)
_PAUSE: Final = click.FloatRange(min=0)
_FILE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)
BUILT_IN: Final = ("office-day", "bursts", "night-quiet", "steady", "talks", "lone")
"""Traces that are made up, as :mod:`scaling.traces` has them; it is not imported here, for numpy takes its time."""


@click.group()
def scale() -> None:
    """Render manifests; simulate scaling."""


@scale.command()
@click.option("--broker", type=click.Choice(["redis", "sqs", "rabbitmq"]), required=True, help="What KEDA looks at.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to write to.")
@click.option("--terraform", type=click.File("rb"), help="Outputs of `terraform output -json`; - for standard input.")
@click.option("--tag", help="The tag of the images; left out, this version of Sluice.")
@click.option("--check", is_flag=True, help="Write nothing; exit 1 where a file is not what would be written.")
@click.pass_context
def render(
    ctx: click.Context, *, broker: Broker, out: Path, terraform: IO[bytes] | None, tag: str | None, check: bool
) -> int:
    """Write the manifests of every pool in the settings: `kubectl apply -k OUT/overlays/aws`."""
    from importlib.metadata import version

    from scaling.kube.provisioned import from_terraform
    from scaling.kube.render import render as rendered
    from scaling.kube.render import stray, write

    settings = settings_of(ctx)
    tag = tag or version("sluice")
    provisioned = from_terraform(terraform.read(), tag=tag) if terraform else None
    files = rendered(settings, _config_text(ctx), broker, provisioned, tag=tag)
    if check:
        stale = [path for path, text in files.items() if not _has(out / path, text)] + stray(files, out)
        for path in stale:
            click.echo(f"{out / path}: is not what the settings say", err=True)
        return 1 if stale else 0
    write(files, out)
    click.echo(f"{len(files)} files in {out}")
    return 0


@scale.command()
@click.option("--trace", required=True, help=f"A file (JSON lines or CSV: time, count), or {', '.join(BUILT_IN)}.")
@click.option("--pool", default="agents.responder", show_default=True, help="Whose rules.")
@click.option("--workers", type=click.IntRange(min=1), help="In place of the pool's max_workers.")
@click.option("--service", "mean", type=_SECONDS, default=2.0, show_default=True, help="Seconds that a request takes.")
@click.option("--measured", type=_FILE, help="Results, as JSON lines: their times in place of --service.")
@click.option("--start", type=_PAUSE, default=3.0, show_default=True, help="Seconds until a new worker is ready.")
@click.option("--worker-hour", type=_PAUSE, default=0.04, show_default=True, help="Money for a worker for an hour.")
@click.option("--png", type=click.Path(path_type=Path, dir_okay=False), help="Draw workers, waiting and waits.")
@json_option
@click.pass_context
def simulate(
    ctx: click.Context,
    *,
    trace: str,
    pool: str,
    workers: int | None,
    mean: float,
    measured: Path | None,
    start: float,
    worker_hour: float,
    png: Path | None,
    as_json: bool,
) -> None:
    """Replay a load against the pool's rules, against workers that are always on, and against queue length alone."""
    from scaling.kube.pools import plans
    from scaling.measured import service_of
    from scaling.simulate import Costs, Pool, Service, compare
    from scaling.traces import arrivals

    settings = settings_of(ctx)
    own = settings.pool(pool)
    [rules] = [plan.rules for plan in plans(settings) if plan.pool == pool]
    rules = replace(rules, maximum=workers or rules.maximum)
    load = arrivals(trace, _TICK)
    service = service_of(measured, pool) if measured else Service(mean)
    with bar(f"{load.sum():.0f} requests", quiet=as_json) as advance:
        outcomes = compare(load, rules, Pool(own.concurrency, service, start), tick=_TICK, advance=advance)
    title = f"{pool}: {load.sum():.0f} requests of {service.mean:.3g} s, at most {rules.maximum} workers"
    if png:
        from scaling.plot import draw

        draw(outcomes, png, title=title)
    found = {name: _facts(outcome, Costs(worker_hour)) for name, outcome in outcomes.items()}
    if as_json:
        print_json(found)
        return
    columns = ["way", *next(iter(found.values()))]
    print_table(title, columns, [[name, *facts.values()] for name, facts in found.items()])


def _facts(outcome: Outcome, costs: Costs) -> dict[str, float]:
    return {
        "p50 s": round(outcome.latency[0.5], 2),
        "p95 s": round(outcome.latency[0.95], 2),
        "p99 s": round(outcome.latency[0.99], 2),
        "most workers": float(outcome.replicas.max()),
        "worker hours": round(outcome.worker_seconds / 3600, 2),
        "cost of a million": round(outcome.cost_per_million(costs), 2),
        "unfinished": round(outcome.unfinished, 1),
    }


def _config_text(ctx: click.Context) -> str:
    from tasks.settings_load import settings_file

    file = settings_file(ctx.find_root().obj)
    return file.read_text() if file else "{}\n"


def _has(file: Path, text: str) -> bool:
    return file.is_file() and file.read_text() == text
