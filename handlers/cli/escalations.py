"""``sluice escalations list|show|answer``."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, TextIO

import click
import msgspec

from handlers.cli.common import ID, Age, ago, json_option, print_json, print_table, run, settings_of, tenant_of_option

if TYPE_CHECKING:
    from handlers.escalations import Answered, Escalations, Shown
    from tasks.settings import Settings
    from tasks.stores.escalations import EscalationSummary


@click.group()
def escalations() -> None:
    """List, read and answer what waits for a person."""


@escalations.command("list")
@click.option("--answered", "which", flag_value="answered", help="Those that were answered.")
@click.option("--all", "which", flag_value="all", help="Open and answered ones.")
@click.option("--older-than", type=Age(), default="0s", help="Only those that were opened so long ago: 30m, 12h, 7d.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="The oldest so many.")
@tenant_of_option
@json_option
@click.pass_context
def list_(
    ctx: click.Context, *, which: str | None, older_than: timedelta, limit: int, tenant: str, as_json: bool
) -> None:
    """List the open escalations of a tenant, the oldest first."""
    answered = {None: False, "answered": True, "all": None}[which]
    found = run(_list(settings_of(ctx), tenant, answered, older_than))
    chosen = list(islice(sorted(found, key=lambda each: each.opened_at), limit))
    if as_json:
        print_json([msgspec.to_builtins(summary) for summary in chosen])
        return
    rows = [
        (each.request_id, each.revision, _age(each.opened_at), "answered" if each.answered_at else "open")
        for each in chosen
    ]
    print_table(f"Escalations of {tenant}", ("request", "revision", "age", "state"), rows)
    if len(found) > len(chosen):
        click.echo(f"and {len(found) - len(chosen)} more; --limit shows them", err=True)


@escalations.command()
@click.argument("request_id", type=ID)
@tenant_of_option
@json_option
@click.pass_context
def show(ctx: click.Context, *, request_id: str, tenant: str, as_json: bool) -> None:
    """Show what REQUEST_ID asks, why it waits, and the brief; it goes on record that you read it."""
    found = run(_show(settings_of(ctx), tenant, request_id))
    escalation = found.escalation
    if as_json:
        print_json(found.to_dict())
        return
    rows: list[tuple[str, Any]] = [
        ("request", f"{request_id}, revision {escalation.revision}"),
        ("opened", f"{escalation.opened_at.isoformat(timespec='seconds')} ({_age(escalation.opened_at)} ago)"),
        ("reason", escalation.reason),
        ("session", escalation.session_id or "none"),
        ("asked", found.text),
        ("brief", escalation.brief or "none"),
        ("answer", _answer(found)),
    ]
    print_table(f"Escalation of {tenant}", ("what", ""), rows)


@escalations.command()
@click.argument("request_id", type=ID)
@click.argument("text", required=False)
@click.option("--file", "file", type=click.File("r", encoding="utf-8"), help="Read the answer here; - for stdin.")
@tenant_of_option
@json_option
@click.pass_context
def answer(
    ctx: click.Context, *, request_id: str, text: str | None, file: TextIO | None, tenant: str, as_json: bool
) -> None:
    """Answer REQUEST_ID with TEXT: that becomes the result of its next revision, and a turn of its session.

    The first answer stands. The same one again is no error; another one is a conflict (exit code 2).
    """
    if (text is None) == (file is None):
        raise click.UsageError("give either TEXT or --file")
    given = run(_answered(settings_of(ctx), tenant, request_id, file.read() if file else text or ""))
    if as_json:
        facts = {"request_id": request_id, "tenant": tenant, "revision": given.revision, "fresh": given.fresh}
        print_json({**facts, "answered_by": given.answer.answered_by})
    else:
        click.echo(f"{request_id}: answered, as revision {given.revision}{'' if given.fresh else ' (before)'}")


@contextlib.asynccontextmanager
async def _escalations(settings: Settings) -> AsyncIterator[Escalations]:
    from handlers.escalations import make_escalations
    from handlers.opening import open_acting

    async with open_acting(settings) as (acting, stores):
        yield make_escalations(acting, settings, stores)


async def _list(
    settings: Settings, tenant: str, answered: bool | None, older_than: timedelta
) -> list[EscalationSummary]:
    async with _escalations(settings) as found:
        return [each async for each in found.list(tenant, answered=answered, older_than=older_than)]


async def _show(settings: Settings, tenant: str, request_id: str) -> Shown:
    async with _escalations(settings) as found:
        return await found.show(tenant, request_id)


async def _answered(settings: Settings, tenant: str, request_id: str, text: str) -> Answered:
    async with _escalations(settings) as found:
        return await found.answer(tenant, request_id, text)


def _answer(found: Shown) -> str:
    if found.answer is None:
        return "none yet: `sluice escalations answer` gives it"
    return f"{found.answer.text} ({found.answer.answered_by}, {found.answer.answered_at.isoformat(timespec='seconds')})"


def _age(since: datetime) -> str:
    return ago((datetime.now(UTC) - since).total_seconds())
