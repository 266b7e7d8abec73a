"""``sluice dlq list|show|redrive|drop``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from handlers.cli.common import Name, ago, bar, json_option, print_json, print_table, run, settings_of
from tasks import keys
from tasks.contracts.base import TENANT_CHARACTERS
from tasks.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from handlers.deadletters import Box, DeadLetters, Done, Wanted
    from handlers.letter import DeadLetter
    from tasks.settings import Settings
    from tasks.stores.connect import Stores

Command = TypeVar("Command", bound=Callable[..., Any])

_BOXES: Final = (keys.DEAD_LETTERS, keys.QUARANTINE, "events")
_SHOWN_BYTES: Final = 4000
_SENTENCE: Final = 100
"""Characters of a reason in a table."""


def _filters(command: Command) -> Command:
    """Add the options that say which letters are meant."""
    for option in (
        click.option("--reason", help="Only those whose reason has this text in it."),
        click.option("--pool", help="Only those that were last in this pool: intent, agents.<type>."),
        click.option("--tenant", type=Name(TENANT_CHARACTERS), help="Only those of this tenant (default: all yours)."),
    ):
        command = option(command)
    return command


all_option = click.option("--all", "every", is_flag=True, help="All that the filters leave.")
dry_option = click.option("--dry-run", "dry", is_flag=True, help="Say what would be done, and do nothing.")


@click.group()
def dlq() -> None:
    """List, read, redrive and drop dead letters. All of it needs the permission dlq:redrive."""


@dlq.command("list")
@_filters
@click.option("--box", type=click.Choice(_BOXES), help="Only those that lie here.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="The oldest so many.")
@json_option
@click.pass_context
def list_(ctx: click.Context, /, *, box: str | None, limit: int, as_json: bool, **filters: str | None) -> None:
    """List dead letters, the oldest first: whose, why, after how many attempts, and what has become of them."""
    wanted = _wanted(filters, (), boxes=(box,) if box else ())
    found, hidden = run(_list(settings_of(ctx), wanted, limit, quiet=as_json))
    if as_json:
        print_json([letter.told() for letter in found])
        return
    columns = ("letter", "tenant", "request", "rev", "age", "attempts", "pool", "state", "reason")
    print_table("Dead letters", columns, [_row(letter) for letter in found])
    if hidden:
        click.echo(f"{hidden} more are of tenants that you may not handle, or of nobody", err=True)


@dlq.command()
@click.argument("which")
@click.option("--tenant", type=Name(TENANT_CHARACTERS), help="The tenant, where several have such a request.")
@json_option
@click.pass_context
def show(ctx: click.Context, *, which: str, tenant: str | None, as_json: bool) -> None:
    """Show the letters of WHICH, the id of a request or of a letter, whole; it goes on record that you read them."""
    found = run(_show(settings_of(ctx), _wanted({"tenant": tenant}, (which,))))
    if as_json:
        print_json([{**letter.told(), "text": text, "content": _content(letter)} for letter, text in found])
        return
    for letter, text in found:
        rows: list[tuple[str, Any]] = [
            ("letter", f"{letter.id} in {letter.box}"),
            ("request", f"{letter.request_id or 'unknown'} of {letter.tenant or 'nobody'}, revision {letter.revision}"),
            ("state", letter.standing.value),
            ("since", _time(letter.queued_at)),
            ("pool", letter.pool or "unknown"),
            ("attempts", "unknown" if letter.attempts is None else letter.attempts),
            ("reason", f"{letter.code}: {letter.reason}" if letter.code else letter.reason or "unknown"),
            ("asked", text) if text is not None else ("content", _content(letter)),
            ("sha256", letter.digest),
        ]
        print_table("Dead letter", ("what", ""), rows)
        if letter.request_id:
            click.echo(f"sluice audit show {letter.request_id} has each attempt")


@dlq.command()
@click.argument("which", nargs=-1)
@all_option
@_filters
@dry_option
@json_option
@click.pass_context
def redrive(
    ctx: click.Context, /, *, which: tuple[str, ...], every: bool, dry: bool, as_json: bool, **filters: str | None
) -> int:
    """Open the next revision of each request WHICH (ids of requests or letters), or of --all.

    A callback that was given up is called again. What cannot be redriven stays, and says why: the exit code is then 1,
    for one alone that of its error. Redriven twice a request runs once.
    """
    _named_or_all(which, every=every)
    wanted = _wanted(filters, which, boxes=() if which else (keys.DEAD_LETTERS,))
    done = run(_each(settings_of(ctx), wanted, lambda desk: partial(desk.redrive, dry=dry), quiet=as_json))
    return _report(done, which, as_json=as_json, said=partial(_redriven, dry=dry))


@dlq.command()
@click.argument("which", nargs=-1)
@all_option
@_filters
@click.option("--box", type=click.Choice(_BOXES), help="Only those that lie here.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@dry_option
@json_option
@click.pass_context
def drop(
    ctx: click.Context, /, *, which: tuple[str, ...], every: bool, box: str | None, yes: bool, dry: bool,
    as_json: bool, **filters: str | None,
) -> int:  # fmt: skip
    """Take the letters of WHICH (ids of requests or letters), or --all, away for good. Results stay.

    The SHA-256 of each goes on record first.
    """
    _named_or_all(which, every=every)
    if as_json and not (yes or dry):
        raise click.UsageError("--json cannot ask: give --yes, or --dry-run")
    settings = settings_of(ctx)
    wanted = _wanted(filters, which, boxes=(box,) if box else ())
    if not (yes or dry):
        found, _ = run(_list(settings, wanted, 100_000, quiet=False))
        click.confirm(f"Drop {len(found)} dead letters for good?", abort=True, err=True)
        # Only what was counted: what came since was not asked about.
        wanted = _wanted(filters, tuple(letter.id for letter in found), boxes=wanted.boxes)
    done = run(_each(settings, wanted, lambda desk: partial(desk.drop, dry=dry), quiet=as_json))
    return _report(done, which, as_json=as_json, said=lambda _: "would drop it" if dry else "dropped")


def _named_or_all(which: tuple[str, ...], *, every: bool) -> None:
    if bool(which) == every:
        raise click.UsageError("give either ids, or --all with filters")


def _wanted(filters: dict[str, str | None], ids: tuple[str, ...], *, boxes: tuple[str, ...] = ()) -> Wanted:
    from handlers.deadletters import Wanted

    return Wanted(**filters, ids=ids, boxes=boxes)


@contextlib.asynccontextmanager
async def _desk(settings: Settings) -> AsyncIterator[DeadLetters]:
    from random import random

    from handlers.deadletters import DeadLetters
    from handlers.opening import open_acting
    from handlers.reopen import Reopener
    from tasks.shards import Placement

    async with open_acting(settings) as (acting, stores), contextlib.AsyncExitStack() as stack:
        reopener = Reopener(
            acting,
            register=stores.register,
            relay=stores.relay,
            results=stores.results,
            unpublished_seconds=settings.leases.unpublished_seconds,
            place=Placement(settings, random),
        )
        yield DeadLetters(
            acting,
            _boxes(settings, stores, stack),
            register=stores.register,
            results=stores.results,
            bodies=stores.bodies,
            reopener=reopener,
        )


def _boxes(settings: Settings, stores: Stores, stack: contextlib.AsyncExitStack) -> dict[str, Box]:
    from handlers.deadletters import Box

    boxes = {queue: Box(stores.broker, queue) for queue in (keys.DEAD_LETTERS, keys.QUARANTINE)}
    if settings.events.dead_letters:
        from tasks.stores.sqs_broker import GivenUrls, SqsBroker

        broker = SqsBroker(GivenUrls(), region=settings.region, loop_time=time.monotonic)
        stack.push_async_callback(broker.close)
        boxes["events"] = Box(broker, settings.events.dead_letters)
    return boxes


async def _list(settings: Settings, wanted: Wanted, limit: int, *, quiet: bool) -> tuple[list[DeadLetter], int]:
    async with _desk(settings) as desk:
        with bar("looked at", quiet=quiet) as progress:
            total = await desk.count(wanted)
            found: list[DeadLetter] = []
            async with contextlib.aclosing(desk.find(wanted, lambda seen: progress(seen, total))) as pages:
                async for page in pages:
                    found += page
                    if len(found) >= limit:
                        break
        return found[:limit], desk.hidden


async def _show(settings: Settings, wanted: Wanted) -> list[tuple[DeadLetter, str | None]]:
    async with _desk(settings) as desk:
        found = [letter async for page in desk.find(wanted) for letter in page]
        if not found:
            raise _no_such(*wanted.ids)
        if len({letter.tenant for letter in found}) > 1:
            raise InvalidInput(f"{wanted.ids[0]}: several tenants have such a request: name one with --tenant")
        return [(letter, await desk.show(letter)) for letter in found]


async def _each(
    settings: Settings,
    wanted: Wanted,
    doing: Callable[[DeadLetters], Callable[[Sequence[DeadLetter]], Any]],
    *,
    quiet: bool,
) -> list[Done]:
    """Do something with the letters that are wanted, as they are found."""
    async with _desk(settings) as desk:
        do = doing(desk)
        done: list[Done] = []
        with bar("letters", quiet=quiet) as progress:
            total = await desk.count(wanted)
            async with contextlib.aclosing(desk.find(wanted, lambda seen: progress(seen, total))) as pages:
                async for page in pages:
                    done += await do(page)
    return done


def _no_such(*names: str) -> NotFound:
    return NotFound(f"no dead letter {', '.join(names)}; `sluice dlq list` shows them")


def _report(done: Sequence[Done], which: tuple[str, ...], *, as_json: bool, said: Callable[[Done], str]) -> int:
    """Print what became of each; return the exit code."""
    failed = [one for one in done if one.error]
    if len(done) == 1 and failed and failed[0].error:
        raise failed[0].error
    found = {name for one in done for name in (one.letter.id, one.letter.request_id)}
    missing = [name for name in which if name not in found]
    if missing and not done:
        raise _no_such(*missing)
    if as_json:
        print_json([_told(one) for one in done])
    else:
        for one in done:
            name = one.letter.request_id if one.letter.message else one.letter.id
            click.echo(f"{name}: stays: {one.why}" if one.error else f"{name}: {said(one)}", err=bool(one.error))
        click.echo(f"{len(done) - len(failed)} done, {len(failed)} stay")
    if missing:
        click.echo(f"error: {_no_such(*missing)}", err=True)
    return 1 if failed or missing else 0


def _told(done: Done) -> dict[str, Any]:
    letter = done.letter
    facts = {"letter": letter.id, "box": letter.box, "tenant": letter.tenant, "request_id": letter.request_id}
    if done.error:
        return {**facts, "done": False, "error": {"code": done.error.code, "message": done.why}}
    return {**facts, "done": True, "revision": done.revision, "fresh": done.fresh, "sha256": letter.digest}


def _redriven(done: Done, *, dry: bool) -> str:
    if done.letter.message is not None and done.letter.message.delivery:
        return f"{'would call' if dry else 'calls'} back for revision {done.revision} again{_before(done)}"
    return f"{'would open' if dry else 'opened'} revision {done.revision}{_before(done)}"


def _before(done: Done) -> str:
    return "" if done.fresh else " (it was there before)"


def _row(letter: DeadLetter) -> tuple[Any, ...]:
    reason = f"{letter.code}: {letter.reason}" if letter.code else letter.reason
    return (
        letter.id,
        letter.tenant,
        letter.request_id,
        letter.revision or "",
        "" if letter.queued_at is None else ago(time.time() - letter.queued_at),
        "" if letter.attempts is None else letter.attempts,
        letter.pool,
        letter.standing.value,
        reason if len(reason) <= _SENTENCE else f"{reason[:_SENTENCE]}…",
    )


def _content(letter: DeadLetter) -> str:
    """Return the beginning of what lies there, as text."""
    return letter.data[:_SHOWN_BYTES].decode(errors="replace")


def _time(seconds: float | None) -> str:
    return "unknown" if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
