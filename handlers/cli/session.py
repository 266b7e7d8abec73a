"""``sluice session show|list|delete``."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import click
import msgspec

from handlers.cli.common import ID, bar, json_option, print_json, print_table, run, settings_of, tenant_of_option

if TYPE_CHECKING:
    from handlers.sessions import Sessions
    from tasks.contracts.session import SessionVersion
    from tasks.settings import Settings
    from tasks.stores.sessions import SessionSummary

_SHOWN = 2000
"""Characters of a message that a person is shown."""


@click.group()
def session() -> None:
    """Show, list and delete sessions: what agents remember of the turns before."""


@session.command()
@click.argument("session_id", type=ID)
@click.option("--version", type=click.IntRange(min=1), help="Another version than the newest.")
@tenant_of_option
@json_option
@click.pass_context
def show(ctx: click.Context, *, session_id: str, version: int | None, tenant: str, as_json: bool) -> None:
    """Show what SESSION_ID remembers; it goes on record that you read it."""
    found = run(_show(settings_of(ctx), tenant, session_id, version))
    if as_json:
        print_json(found.to_dict())
        return
    if found.result is None:
        click.echo(f"version {found.version}: deleted by {found.deleted_by} at {found.saved_at.isoformat()}")
        return
    for message in _messages(found):
        click.echo(f"{message.get('source', message.get('type', '?'))}: {_told(message.get('content'))}")
    turn = f"request {found.result.request_id}, revision {found.result.revision}"
    click.echo(f"[version {found.version}; {turn}; saved {found.saved_at.isoformat()}]", err=True)


@session.command("list")
@click.option("--deleted", is_flag=True, help="Also those that were deleted.")
@tenant_of_option
@json_option
@click.pass_context
def list_(ctx: click.Context, *, deleted: bool, tenant: str, as_json: bool) -> None:
    """List the sessions of a tenant. Reads a listing of all their versions."""
    found = run(_list(settings_of(ctx), tenant, deleted))
    if as_json:
        print_json([msgspec.to_builtins(summary) for summary in found])
        return
    rows = [
        (each.session_id, each.version, each.bytes, each.saved_at.isoformat(timespec="seconds"), "yes" * each.deleted)
        for each in found
    ]
    print_table(f"Sessions of {tenant}", ("session", "version", "bytes", "last turn", "deleted"), rows)


@session.command()
@click.argument("session_id", type=ID)
@tenant_of_option
@json_option
@click.pass_context
def delete(ctx: click.Context, *, session_id: str, tenant: str, as_json: bool) -> None:
    """Delete what SESSION_ID remembers: its next turn begins anew. Results and audit stay."""
    with bar("versions", quiet=as_json) as progress:
        found = run(_delete(settings_of(ctx), tenant, session_id, progress))
    if as_json:
        print_json({"tenant": tenant, "session_id": session_id, "version": found.version, "erased": found.version - 1})
    else:
        click.echo(f"{session_id}: deleted; {found.version - 1} versions are empty, the next turn begins anew")


@contextlib.asynccontextmanager
async def _sessions(settings: Settings) -> AsyncIterator[Sessions]:
    from handlers.opening import open_acting
    from handlers.sessions import Sessions

    async with open_acting(settings) as (acting, stores):
        yield Sessions(acting, sessions=stores.sessions, results=stores.results)


async def _show(settings: Settings, tenant: str, session_id: str, version: int | None) -> SessionVersion:
    async with _sessions(settings) as sessions:
        return await sessions.show(tenant, session_id, version)


async def _list(settings: Settings, tenant: str, deleted: bool) -> list[SessionSummary]:
    async with _sessions(settings) as sessions:
        return await sessions.list(tenant, deleted=deleted)


async def _delete(settings: Settings, tenant: str, session_id: str, told: Callable[[int, int], None]) -> SessionVersion:
    async with _sessions(settings) as sessions:
        return await sessions.delete(tenant, session_id, told=told)


def _messages(version: SessionVersion) -> list[dict[str, Any]]:
    from tasks.agents.state import messages_of
    from tasks.errors import InvalidInput

    try:
        return messages_of(version.state)
    except InvalidInput:
        return [{"source": "state", "content": version.state}]


def _told(content: object) -> str:
    text = content if isinstance(content, str) else str(content)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters; --json shows all)"
