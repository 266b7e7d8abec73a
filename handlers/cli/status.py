"""``sluice status``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from handlers.cli.common import json_option, print_json, print_table, run, settings_of
from tasks import keys
from tasks.errors import SluiceError
from tasks.settings import Settings

if TYPE_CHECKING:
    from tasks.contracts.weights import Weights


@click.command()
@json_option
@click.pass_context
def status(ctx: click.Context, *, as_json: bool) -> None:
    """Show servers, queues (waiting, running), shards, workers and the model version."""
    seen = run(look(settings_of(ctx)))
    if as_json:
        print_json(seen)
        return
    print_table("Servers", ("name", "pid", "memory MB"), [(s["name"], s["pid"], s["rss_mb"]) for s in seen["servers"]])
    print_table(
        "Pools",
        ("pool", "waiting", "running", "workers", "desired", "peak"),
        [[pool[key] for key in ("pool", "waiting", "running", "workers", "desired", "peak")] for pool in seen["pools"]],
    )
    if seen["shards"]:
        columns = ("shard", "state", "weight", "share", "workers", "cpu_free", "memory_free", "network_free")
        shards = [[_shown(shard[column]) for column in columns] for shard in seen["shards"]]
        print_table("Shards", [column.replace("_", " ") for column in columns], shards)
    print_table(
        "Workers",
        ("worker", "pid", "running", "memory MB", "model version"),
        [[w["name"], w["pid"], w["running"], w["rss_mb"], w["model_version"]] for w in seen["workers"]],
    )
    if seen["shards"] and seen["coordinator"] is None:
        click.echo("no coordinator: shards are chosen alike (one leads as soon as a worker runs)")
    for name in seen["missing"]:
        click.echo(f"warning: {name} does not run; `sluice up` starts it again", err=True)
    register = seen["register"]
    click.echo(f"register: {register['leased']} running, {register['delayed']} waiting for their time")
    click.echo(f"dead letters: {seen['dead_letters']}, quarantined: {seen['quarantine']}")
    click.echo(f"intent model: {seen['model_version']}")
    for worker in seen["workers"]:
        for family, found in worker.get("canaries", {}).items():
            click.echo(f"  {worker['name']}: canary of {family}: {found['version']} with {found['share'] * 100:.4g}%")
        for family, reason in worker.get("refused", {}).items():
            click.echo(f"warning: {worker['name']} refused a version of {family}: {reason}", err=True)
    click.echo(
        f"buckets: {seen['buckets']['data']}, {seen['buckets']['audit']} at {seen['buckets']['endpoint'] or 'AWS'}"
    )


async def look(settings: Settings) -> dict[str, Any]:
    """Return what a person who answers for this pipeline wants to see first."""
    from scaling.local import pool_of
    from scaling.processes import Processes
    from scaling.stack import AUTOSCALER, REDIS, S3, SCHEDULER, SEALER
    from tasks.settings_load import home
    from tasks.stores.connect import connect
    from tasks.stores.weights import WeightStore

    processes = Processes(home().absolute()).all()
    async with connect(settings) as stores:
        depths = await stores.broker.depths(settings.pools)
        register = await stores.register.counts()
        dead = await stores.broker.length(keys.DEAD_LETTERS)
        quarantined = await stores.broker.length(keys.QUARANTINE)
        workers = await stores.board.workers(since=time.time() - 3 * settings.leases.heartbeat_seconds)
        scaled = await stores.board.pools()
        weights = await WeightStore(stores.link).read() if settings.sharded else None
    by_pid = {spawned.pid: spawned for spawned in processes}
    for worker in workers:
        spawned = by_pid.get(worker["pid"])
        worker["rss_mb"] = _megabytes(spawned.rss_bytes()) if spawned else None
    # Where an embedded stack was started, all of it should run; elsewhere somebody else starts these.
    needed = {REDIS, S3, SCHEDULER, SEALER, AUTOSCALER} if processes else set()
    missing = needed - {spawned.name for spawned in processes}
    return {
        "missing": sorted(missing),
        "servers": [
            {"name": spawned.name, "pid": spawned.pid, "rss_mb": _megabytes(spawned.rss_bytes())}
            for spawned in processes
            if pool_of(spawned) is None
        ],
        "pools": [
            _pool(name, depth.waiting, depth.running, scaled.get(name, {}))
            | {"workers": sum(worker["pool"] == name for worker in workers)}
            for name, depth in depths.items()
        ],
        "shards": _shards(settings, weights),
        "coordinator": {"leader": weights.leader, "at": weights.at, "token": weights.token} if weights else None,
        "workers": workers,
        "register": register,
        "dead_letters": dead,
        "quarantine": quarantined,
        "model_version": await next_version(settings),
        "buckets": {
            "data": settings.data_bucket,
            "audit": settings.audit_bucket,
            "endpoint": settings.s3_endpoint,
        },
    }


def _pool(name: str, waiting: int, running: int, scaled: dict[str, int]) -> dict[str, Any]:
    seen = {key: scaled.get(key, 0) for key in ("desired", "peak")}
    return {"pool": name, "waiting": waiting, "running": running, **seen}


def _shards(settings: Settings, weights: Weights | None) -> list[dict[str, Any]]:
    """Return each shard: its weight and why it has it, and the share of new requests that it gets (both 0 to 1)."""
    from tasks.shards import chances, draining

    known = weights.shards if weights else {}
    found = []
    for pool, shards in settings.sharded.items():
        odds = chances(shards, known, draining=draining(settings))
        for shard in shards:
            weighed = known.get(shard)
            load = weighed.load if weighed else None
            found.append(
                {
                    "pool": pool,
                    "shard": shard,
                    "state": weighed.state.value if weighed else "unknown",
                    "weight": weighed.weight if weighed else None,
                    "share": odds.share(shard),
                    "workers": weighed.workers if weighed else 0,
                    "cpu_free": load.cpu_free if load else None,
                    "memory_free": load.memory_free if load else None,
                    "network_free": load.network_free if load else None,
                }
            )
    return found


def _shown(value: str | float | None) -> str:
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


def _megabytes(size: int) -> float:
    return round(size / 2**20, 1)


async def next_version(settings: Settings) -> str:
    """Return the version of the classifier that a worker would serve with, if it started now."""
    from intent.promotions import PACKAGED, PromotionLog
    from tasks.stores.s3 import data_store

    if settings.intent.model_dir is None:
        try:
            last = await PromotionLog(data_store(settings), settings.intent.family).latest()
        except SluiceError as error:
            return f"unknown: {error}"
        if last and last.stable != PACKAGED:
            return last.stable.version
    return model_version(settings)


def model_version(settings: Settings) -> str:
    """Return the version of the configured or packaged classifier, without loading it."""
    from intent.manifest import check_model, default_dir

    try:
        return check_model(settings.intent.model_dir or default_dir())[0].version
    except SluiceError as error:
        return f"none: {error}"
