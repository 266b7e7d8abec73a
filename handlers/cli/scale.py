"""``sluice scale``: manifests for Kubernetes, and what scaling rules would do with a load."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from handlers.cli.common import json_option, print_json, print_table, settings_of
from tasks.errors import InvalidInput

if TYPE_CHECKING:
    from scaling.kube.triggers import Broker
    from scaling.simulate import Outcome

_TICK = 0.25


@click.group()
def scale() -> None:
    """Render manifests; simulate scaling."""


@scale.command()
@click.option("--broker", type=click.Choice(["redis", "sqs", "rabbitmq"]), required=True, help="What KEDA looks at.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to write to.")
@click.option("--terraform", type=click.File("rb"), help="Outputs of `terraform output -json`; - for standard input.")
@click.option("--tag", default="latest", show_default=True, help="The tag of the images that Terraform's registry has.")
@click.option("--check", is_flag=True, help="Write nothing; exit 1 where a file is not what would be written.")
@click.pass_context
def render(ctx: click.Context, *, broker: Broker, out: Path, terraform: IO[bytes] | None, tag: str, check: bool) -> int:
    """Write the manifests of every pool in the settings: `kubectl apply -k OUT/overlays/aws`."""
    from scaling.kube.provisioned import from_terraform
    from scaling.kube.render import render as rendered
    from scaling.kube.render import write

    settings = settings_of(ctx)
    provisioned = from_terraform(terraform.read(), tag=tag) if terraform else None
    files = rendered(settings, _config_text(ctx), broker, provisioned)
    if check:
        stale = [path for path, text in files.items() if not _has(out / path, text)]
        for path in stale:
            click.echo(f"{out / path}: is not what the settings say", err=True)
        return 1 if stale else 0
    write(files, out)
    click.echo(f"{len(files)} files in {out}")
    return 0


@scale.command()
@click.option("--trace", required=True, help="A file (JSON lines or CSV: time, count), or office-day, bursts, lone.")
@click.option("--pool", default="agents.responder", show_default=True, help="Whose rules.")
@click.option("--service", "mean", type=float, default=2.0, show_default=True, help="Seconds that a request takes.")
@click.option("--start", type=float, default=3.0, show_default=True, help="Seconds until a new worker is ready.")
@click.option("--worker-hour", type=float, default=0.04, show_default=True, help="Money for a worker for an hour.")
@json_option
@click.pass_context
def simulate(
    ctx: click.Context, *, trace: str, pool: str, mean: float, start: float, worker_hour: float, as_json: bool
) -> None:
    """Replay a load against the pool's rules, against workers that are always on, and against queue length alone."""
    from scaling.kube.pools import plans
    from scaling.rules import Scaler
    from scaling.simulate import Costs, Pool, Service, always, by_rules, replay
    from scaling.traces import arrivals

    if mean <= 0 or start < 0:
        raise InvalidInput("--service must be above 0, --start not below")
    settings = settings_of(ctx)
    own = settings.pool(pool)
    [rules] = [plan.rules for plan in plans(settings) if plan.pool == pool]
    load = arrivals(trace, _TICK)
    served = Pool(own.concurrency, Service(mean), start)
    ways = {
        "waiting + running": (by_rules(Scaler(rules)), 0),
        "queue length alone": (by_rules(Scaler(rules), in_flight=False), 0),
        "always on": (always(rules.maximum), rules.maximum),
    }
    found = {
        name: _facts(replay(load, decide, served, tick=_TICK, replicas=replicas), Costs(worker_hour))
        for name, (decide, replicas) in ways.items()
    }
    if as_json:
        print_json(found)
        return
    columns = ["way", *next(iter(found.values()))]
    print_table(
        f"{pool}: {load.sum():.0f} requests", columns, [[name, *facts.values()] for name, facts in found.items()]
    )


def _facts(outcome: Outcome, costs: Any) -> dict[str, float]:
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
