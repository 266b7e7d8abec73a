"""``sluice intent publish|versions|promote|rollback``."""

from __future__ import annotations

import contextlib
import getpass
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from handlers.cli.common import json_option, print_json, print_table, run, settings_of
from handlers.cli.intent_canary import family_option, percent
from tasks.errors import Conflict

if TYPE_CHECKING:
    from intent.promotions import Pinned, Promotion
    from tasks.contracts.audit import Action
    from tasks.settings import Settings
    from tasks.stores.connect import Stores


why_option = click.option("--why", default="", help="A reason, for the log and the audit.")


class Share(click.ParamType[float]):
    """A share of the requests: ``10%``, or ``0.1``."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the share as a number within 0..1."""
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            self.fail(f"{text!r} is no share: write 10% or 0.1", param, ctx)
        if not 0 < share <= 1:
            self.fail("must be above 0% and at most 100%", param, ctx)
        return share


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@family_option
@json_option
@click.pass_context
def publish(ctx: click.Context, *, folder: Path, family: str | None, as_json: bool) -> None:
    """Publish the model in DIR as a version; nothing serves with it until it is promoted."""
    from intent.classifier import Classifier

    settings = settings_of(ctx)
    Classifier.load(folder, threads=settings.intent.threads)  # what does not run here would be refused everywhere
    pinned, fresh = run(_publish(settings, family or settings.intent.family, folder))
    if as_json:
        print_json({"family": pinned.family, "version": pinned.version, "published": fresh})
    else:
        said = "published" if fresh else "was published already"
        click.echo(f"{pinned.version} {said} in {pinned.family}")
        click.echo(f"`sluice intent promote {pinned.version}` makes it serve")


async def _publish(settings: Settings, family: str, folder: Path) -> tuple[Pinned, bool]:
    from intent.versions import VersionStore
    from tasks.contracts.audit import Action

    async with _recorded(settings) as (stores, record):
        pinned, fresh = await VersionStore(stores.data, family).publish(folder)
        if fresh:
            await record(Action.MODEL_PUBLISHED, f"{family}/{pinned.version}", "", manifest=pinned.manifest)
        return pinned, fresh


@click.command()
@family_option
@json_option
@click.pass_context
def versions(ctx: click.Context, *, family: str | None, as_json: bool) -> None:
    """List the published versions: which serves, with what share, since when and by whom."""
    settings = settings_of(ctx)
    family = family or settings.intent.family
    rows, packaged = run(_versions(settings, family))
    if as_json:
        print_json({"family": family, "versions": rows, "packaged_share": packaged})
        return
    columns = ("version", "share", "since", "by", "why")
    print_table(
        f"Versions of {family}",
        columns,
        [[row["version"], percent(row["share"]), *(row[name] or "" for name in columns[2:])] for row in rows],
    )
    if packaged:
        click.echo(f"the packaged model serves {percent(packaged)} of the requests")
    if settings.intent.model_dir:
        click.echo("warning: intent.model_dir is set: workers with these settings look at no versions", err=True)


async def _versions(settings: Settings, family: str) -> tuple[list[dict[str, Any]], float]:
    from intent.promotions import PACKAGED, PromotionLog
    from intent.versions import VersionStore
    from tasks.stores.connect import connect

    async with connect(settings) as stores:
        log = PromotionLog(stores.data, family)
        names = await VersionStore(stores.data, family).names()
        last = await log.latest()
        whole = await log.serving_since(last) if last else None
    serving: dict[str, tuple[float, Promotion | None]] = {}
    if last:
        rest = 1 - last.share if last.canary else 1.0
        serving[last.stable.version] = (rest, whole)
        if last.canary:
            serving[last.canary.version] = (last.share, last)
    packaged = serving.get(PACKAGED.version, (0.0 if last else 1.0, None))[0]
    return [_row(name, *serving.get(name, (0.0, None))) for name in names], packaged


def _row(version: str, share: float, entry: Promotion | None) -> dict[str, Any]:
    return {
        "version": version,
        "share": share,
        "since": entry.at.isoformat(timespec="seconds") if entry else None,
        "by": entry.who if entry else None,
        "why": entry.why if entry else None,
    }


@click.command()
@click.argument("version")
@click.option("--share", type=Share(), default=1.0, help="Less than 100%: as a canary, beside what serves now.")
@family_option
@why_option
@json_option
@click.pass_context
def promote(ctx: click.Context, *, version: str, share: float, family: str | None, why: str, as_json: bool) -> None:
    """Make VERSION serve: workers take it up by themselves."""
    settings = settings_of(ctx)
    entry, lost = run(_promote(settings, family or settings.intent.family, version, share, why))
    _tell(entry, settings, as_json=as_json)
    if lost:
        fallback = settings.routing.fallback
        click.echo(f"warning: no route for {', '.join(lost)}: these go to {fallback}", err=True)


async def _promote(
    settings: Settings, family: str, version: str, share: float, why: str
) -> tuple[Promotion, list[str]]:
    from intent.promotions import PromotionLog
    from intent.routes import unrouted
    from intent.versions import VersionStore
    from tasks.contracts.audit import Action

    async with _recorded(settings) as (stores, record):
        published = VersionStore(stores.data, family)
        pinned = await published.find(version)
        labels = (await published.manifest(pinned)).labels
        log = PromotionLog(stores.data, family)
        entry = await log.promotion(await log.latest(), pinned, share, _change(why))
        await _append(log, entry, Action.MODEL_PROMOTED, record)
        return entry, unrouted(labels, settings.routing)[0]


@click.command()
@family_option
@why_option
@json_option
@click.pass_context
def rollback(ctx: click.Context, *, family: str | None, why: str, as_json: bool) -> None:
    """Take the last promotion back: end a canary, or serve with the version before."""
    settings = settings_of(ctx)
    _tell(run(_rollback(settings, family or settings.intent.family, why)), settings, as_json=as_json)


async def _rollback(settings: Settings, family: str, why: str) -> Promotion:
    from intent.promotions import PromotionLog
    from tasks.contracts.audit import Action

    async with _recorded(settings) as (stores, record):
        log = PromotionLog(stores.data, family)
        entry = await log.rollback(await log.latest(), _change(why))
        await _append(log, entry, Action.MODEL_ROLLED_BACK, record)
        return entry


def _change(why: str) -> Any:
    from intent.promotions import Change
    from tasks.contracts.base import utc_now

    return Change(who=f"{getpass.getuser()}@{socket.gethostname()}", at=utc_now(), why=why)


@contextlib.asynccontextmanager
async def _recorded(settings: Settings) -> AsyncIterator[tuple[Stores, Any]]:
    """Give the stores, and what puts an action on record; it returns when that is durable."""
    from handlers.acting import AUDIT_SECONDS
    from handlers.opening import open_acting
    from tasks.access.policy import Act
    from tasks.contracts.audit import Decision

    async with open_acting(settings) as (acting, stores):

        async def record(action: Action, resource: str, reason: str, *, denied: bool = False, **details: Any) -> None:
            event = acting.event(action, "", resource, reason=reason, **details, at=_change("").who)
            decision = Decision.DENY if denied else Decision.ALLOW
            await acting.audit.commit([event.changed(decision=decision)], timeout=AUDIT_SECONDS)

        await acting.permit(Act.MODEL_PROMOTE, "")
        yield stores, record


async def _append(log: Any, entry: Promotion, action: Action, record: Any) -> None:
    """Write ``entry``, once it is on record: nothing serves that the audit does not know of."""
    resource = f"{entry.family}/{entry.version}"
    details = {"number": entry.number, "share": entry.share, "previous": entry.previous, "manifest": entry.manifest}
    await record(action, resource, entry.why, **details)
    try:
        await log.append(entry)
    except Conflict as error:
        await record(action, resource, str(error), denied=True, **details)
        raise


def _tell(entry: Promotion, settings: Settings, *, as_json: bool) -> None:
    if as_json:
        print_json(entry.to_dict())
        return
    where, seconds = f"in {entry.family} (entry {entry.number})", settings.intent.refresh_seconds
    if entry.canary:
        click.echo(f"{entry.canary} gets {percent(entry.share)}, {entry.stable} keeps the rest {where}")
    else:
        click.echo(f"{entry.stable} serves {where}; before: {entry.previous or 'the packaged model'}")
    click.echo(f"workers take it up within {seconds:g} s; one that cannot says so in `sluice status`")
    if settings.intent.model_dir:
        click.echo("warning: intent.model_dir is set: workers with these settings look at no versions", err=True)


COMMANDS: Final = (publish, versions, promote, rollback)
