"""The long-running commands: ``worker``, ``autoscale``, ``sweep``, ``seal``."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from handlers.cli.common import json_option, naming_the_mend, print_json, run, settings_of, until_told
from tasks.errors import SluiceError
from tasks.log import get_logger

if TYPE_CHECKING:
    from tasks.seal import Sealed
    from tasks.settings import Settings
    from tasks.sweep import Swept


@click.command()
@click.option(
    "--pool",
    "pools",
    required=True,
    multiple=True,
    help="intent, callbacks, agents.<type>, or a shard of one: agents.<type>@<shard>; several times for several pools.",
)
@click.option(
    "--until-idle",
    "idle_seconds",
    type=click.FloatRange(0, min_open=True),
    help="End after so many seconds without work.",
)
@click.pass_context
def worker(ctx: click.Context, pools: tuple[str, ...], idle_seconds: float | None) -> None:
    """Run one worker process of one or more pools until SIGTERM, which drains it. SIGHUP reloads agents and models."""
    from tasks.runtime import Worker
    from tasks.runtime import run as serve
    from tasks.settings_load import Source

    source = Source(ctx.find_root().obj)
    settings = settings_of(ctx)
    for pool in pools:
        settings.pool(pool)
    with naming_the_mend():
        serve(Worker(settings, pools, source=source), idle_seconds=idle_seconds)


@click.command()
@click.option(
    "--manifests",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Obey the ScaledObjects in this folder, as `sluice scale render` wrote them, instead of the settings' own.",
)
@click.option("--keep-stack", is_flag=True, help="Also start again what died of the stack that `sluice up` started.")
@click.pass_context
def autoscale(ctx: click.Context, *, manifests: Path | None, keep_stack: bool) -> None:
    """Run the local autoscaler until SIGTERM: workers from zero and back, by KEDA's rules. One for each home folder."""
    from scaling import objects
    from scaling.local import autoscale as scale
    from scaling.lock import sole
    from scaling.processes import Processes
    from tasks.settings_load import home

    settings, folder = settings_of(ctx), home().absolute()
    watches = objects.read(manifests, settings) if manifests else None
    with sole(folder / "autoscaler.lock", "an autoscaler"):
        scaling = scale(settings, Processes(folder), watches)
        asyncio.run(until_told(_keeping(settings, folder, scaling) if keep_stack else scaling))


async def _keeping(settings: Settings, folder: Path, work: Coroutine[Any, Any, None]) -> None:
    """Do ``work``, and keep the stack in ``folder`` alive meanwhile."""
    import time

    from scaling.keeper import Keeper
    from scaling.stack import Stack

    log = get_logger()
    stack = Stack(folder, settings)
    keeper = Keeper(stack.missing, lambda: stack.up(lambda line: log.info("stack", told=line)), now=time.monotonic)
    async with asyncio.TaskGroup() as both:
        both.create_task(keeper.run())
        both.create_task(work)


@click.command()
@click.option("--every", is_flag=True, help="Go on, every leases.sweep_seconds, until SIGTERM.")
@json_option
@click.pass_context
def sweep(ctx: click.Context, *, every: bool, as_json: bool) -> None:
    """Publish what was lost or waits for its time; end what is overdue."""
    settings = settings_of(ctx)
    if every:
        asyncio.run(until_told(_sweep_forever(settings)))
        return
    swept = run(_sweep_once(settings))
    numbers = {
        "unpublished": swept.unpublished,
        "lost": swept.lost,
        "lapsed": swept.lapsed,
        "expired": swept.expired,
    }
    if as_json:
        print_json(numbers)
    else:
        click.echo(", ".join(f"{count} {name}" for name, count in numbers.items()))


async def _sweep_once(settings: Settings) -> Swept:
    from tasks.scheduled import open_sweeper

    async with open_sweeper(settings) as sweeper:
        return await sweeper.run_once()


async def _sweep_forever(settings: Settings) -> None:
    from tasks.scheduled import open_sweeper

    log = get_logger()
    async with open_sweeper(settings) as sweeper:
        while True:
            try:
                await sweeper.run_once()
            except SluiceError as error:
                log.failure("sweep failed, trying again", error)
            except Exception:  # a sweeper that ends leaves everybody waiting
                log.exception("sweep failed, trying again")
            await asyncio.sleep(settings.leases.sweep_seconds)


@click.command()
@click.option("--every", is_flag=True, help="Go on, every auditing.seal_seconds, until SIGTERM.")
@json_option
@click.pass_context
def seal(ctx: click.Context, *, every: bool, as_json: bool) -> None:
    """Seal the audit: write a signed checkpoint over the segments that are new. Several sealers may run."""
    settings = settings_of(ctx)
    if every:
        asyncio.run(until_told(_seal_forever(settings)))
        return
    sealed = run(_seal_once(settings))
    if as_json:
        print_json(msgspec.to_builtins(sealed))
    elif sealed is None:
        click.echo("another sealer was first")
    else:
        click.echo(f"checkpoint {sealed.number}: {sealed.segments} new segments, {sealed.size} in all")


async def _seal_once(settings: Settings) -> Sealed | None:
    from tasks.scheduled import open_sealer

    async with open_sealer(settings) as sealer:
        while True:
            sealed = await sealer.run_once(force=True)
            if sealed is None or sealed.complete:
                return sealed


async def _seal_forever(settings: Settings) -> None:
    from tasks.scheduled import open_sealer

    log = get_logger()
    async with open_sealer(settings) as sealer:
        while True:
            pause = settings.auditing.seal_seconds / 4  # so that a sealer that ended is soon replaced by another one
            try:
                sealed = await sealer.run_once()
                if sealed and not sealed.complete:
                    pause = 0.0
            except SluiceError as error:
                log.failure("sealing failed, trying again", error)
            except Exception:  # a sealer that ends leaves the tail open
                log.exception("sealing failed, trying again")
            await asyncio.sleep(pause)
