"""``sluice submit`` and ``sluice result``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import click
import orjson

from handlers.cli.common import console, json_option, print_json, print_table, run, settings_of
from tasks.contracts.request import Request
from tasks.contracts.strict import parse_strict
from tasks.contracts.words import Priority
from tasks.errors import Denied, InvalidInput, QuotaExceeded, ResultTimeout, SluiceError
from tasks.settings import Settings

if TYPE_CHECKING:
    from rich.progress import Progress

    from handlers.producer import AsyncProducer
    from tasks.contracts.result import Result

_BATCH: Final = 100
_MAX_LINE: Final = 4 * 1024 * 1024


@click.command()
@click.argument("text", required=False)
@click.option(
    "--file",
    "file",
    type=click.File("r", encoding="utf-8"),
    help="JSON lines of requests; - for standard input.",
)
@click.option("--id", "request_id", help="Your own idempotency key (default: a new UUIDv7).")
@click.option("--tenant", default="default", show_default=True)
@click.option("--session", "session_id", help="The session that this is a turn of.")
@click.option("--intent", help="Skip the classifier.")
@click.option("--model", help="Use this model instead of the agent type's.")
@click.option("--priority", type=click.Choice([p.value for p in Priority]), default="normal", show_default=True)
@click.option("--deadline", help="An RFC 3339 time after which nobody wants the answer.")
@click.option("--attach", "attachments", multiple=True, help="A key under attachments/<tenant>/; may be repeated.")
@click.option("--metadata", help="A JSON object that travels with the request.")
@click.option("--wait/--no-wait", default=None, help="Wait for the results (default: only with --file).")
@click.option("--timeout", type=float, help="Seconds to wait.")
@json_option
@click.pass_context
def submit(
    ctx: click.Context, /, *, text: str | None, file: TextIO | None, wait: bool | None, timeout: float | None,
    as_json: bool, **fields: Any,
) -> int:  # fmt: skip
    """Submit TEXT, or every line of --file (a JSON object with at least "text"; defaults come from the options)."""
    if (text is None) == (file is None):
        raise click.UsageError("give either TEXT or --file")
    settings = settings_of(ctx)
    defaults = _fields(fields)
    if file is not None:
        if "id" in defaults:
            raise click.UsageError("--id names one request; in a file each line has its own")
        return run(_submit_file(settings, file, defaults, wait=wait is not False, timeout=timeout, as_json=as_json))
    request = parse_strict(Request, {**defaults, "text": text})
    return run(_submit_one(settings, request, wait=bool(wait), timeout=timeout, as_json=as_json))


@click.command()
@click.argument("request_id")
@click.option("--tenant", default="default", show_default=True)
@click.option("--timeout", type=float, default=0, show_default=True, help="Seconds to wait for it.")
@json_option
@click.pass_context
def result(ctx: click.Context, *, request_id: str, tenant: str, timeout: float, as_json: bool) -> int:
    """Show the result of REQUEST_ID."""
    from handlers.producer import AsyncProducer

    async def fetch() -> Result:
        async with AsyncProducer(settings_of(ctx), tenant=tenant) as producer:
            return await producer.result(request_id, timeout)

    return _show(run(fetch()), as_json=as_json)


def _fields(options: dict[str, Any]) -> dict[str, Any]:
    fields = {name: value for name, value in options.items() if value not in (None, ())}
    if "request_id" in fields:
        fields["id"] = fields.pop("request_id")
    if "metadata" in fields:
        try:
            fields["metadata"] = orjson.loads(fields["metadata"])
        except orjson.JSONDecodeError as error:
            raise InvalidInput(f"metadata: not valid JSON: {error}") from error
    return fields


async def _submit_one(
    settings: Settings,
    request: Request,
    *,
    wait: bool,
    timeout: float | None,
    as_json: bool,
) -> int:
    from handlers.producer import AsyncProducer

    async with AsyncProducer(settings, tenant=request.tenant) as producer:
        [outcome] = await producer.accept([request])
        if isinstance(outcome, SluiceError):
            raise outcome
        if wait:
            # At once: whoever interrupts the waiting has accepted work, and must be able to name it.
            click.echo(f"accepted: {outcome.id}", err=True)
            return _show(await producer.result(request.id, timeout), as_json=as_json)
    if as_json:
        print_json({"id": outcome.id, "tenant": outcome.tenant, "accepted": outcome.acceptance.value})
    else:
        click.echo(outcome.id)
    return 0


def _show(found: Result, *, as_json: bool) -> int:
    from tasks import keys

    if as_json:
        print_json(found.to_dict())
    else:
        click.echo(found.output or (found.error.message if found.error else ""))
        agent = f"{found.agent.type}, {found.agent.model}" if found.agent else "no agent"
        intent = f"{found.intent.label} ({found.intent.confidence:.2f})" if found.intent else "no intent"
        key = keys.result(found.tenant, found.request_id, found.revision)
        click.echo(
            f"[{found.status.value}; {intent}; {agent}; {found.timings.latency_seconds:.2f} s; {key}]",
            err=True,
        )
    return 0 if found.status.value in {"succeeded", "escalated"} else 1


@dataclass
class _Tally:
    """What became of the lines of a file."""

    accepted: list[tuple[str, str]] = field(default_factory=list)
    same: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    def refuse(self, source: str, line: int, error: SluiceError, *, tell: bool) -> None:
        """Remember a bad line, and say so at once."""
        self.errors.append({"line": line, "code": error.code, "error": str(error)})
        if tell:
            click.echo(f"error: {source}:{line}: {error}", err=True)


async def _submit_file(
    settings: Settings,
    file: TextIO,
    defaults: dict[str, Any],
    *,
    wait: bool,
    timeout: float | None,
    as_json: bool,
) -> int:
    """Accept the good lines, report the bad ones by line and field, wait for the results."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from handlers.producer import AsyncProducer

    tally = _Tally()
    late: ResultTimeout | None = None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(err=True)) as progress:
        async with AsyncProducer(settings) as producer:
            await _accept_lines(producer, file, defaults, tally, progress, tell=not as_json)
            if wait and tally.accepted:
                bar = progress.add_task("finished", total=len(set(tally.accepted)))
                try:
                    async for found in producer.follow(tally.accepted, timeout):
                        tally.statuses[found.status.value] += 1
                        progress.advance(bar)
                except ResultTimeout as error:
                    late = error
    _summarise(tally, as_json=as_json)
    if late:
        click.echo(f"error: {late}", err=True)
        return late.exit_code
    if tally.errors:
        codes = {error["code"] for error in tally.errors}
        alone = {frozenset({kind.code}): kind.exit_code for kind in (Denied, QuotaExceeded)}
        return alone.get(frozenset(codes), InvalidInput.exit_code)
    return 1 if set(tally.statuses) - {"succeeded", "escalated"} else 0


async def _accept_lines(
    producer: AsyncProducer,
    file: TextIO,
    defaults: dict[str, Any],
    tally: _Tally,
    progress: Progress,
    *,
    tell: bool,
) -> None:
    bar = progress.add_task("accepted", total=_count_lines(file))
    batch: list[tuple[int, Request]] = []

    async def flush() -> None:
        outcomes = await producer.accept([request for _, request in batch])
        for (number, _), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, SluiceError):
                tally.refuse(file.name, number, outcome, tell=tell)
            else:
                tally.accepted.append((outcome.tenant, outcome.id))
                tally.same += outcome.acceptance.value == "same"
        progress.advance(bar, len(batch))
        batch.clear()

    for number, line in _lines(file):
        try:
            batch.append((number, _parse(line, defaults)))
        except InvalidInput as error:
            tally.refuse(file.name, number, error, tell=tell)
            progress.advance(bar)
        if len(batch) == _BATCH:
            await flush()
    if batch:
        await flush()


def _parse(line: str, defaults: dict[str, Any]) -> Request:
    if len(line) > _MAX_LINE:
        raise InvalidInput(f"line: is over {_MAX_LINE} characters")
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"line: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidInput('line: must be a JSON object with at least "text"')
    return parse_strict(Request, {**defaults, **value})


def _lines(file: TextIO) -> Iterator[tuple[int, str]]:
    try:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file.name}: not UTF-8: {error}") from error


def _count_lines(file: TextIO) -> int | None:
    """Return the number of lines that are not blank, or None for a stream that can be read only once."""
    path = Path(file.name)
    if not path.is_file():
        return None
    with path.open("rb") as raw:
        return sum(1 for line in raw if line.strip())


def _summarise(tally: _Tally, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "accepted": len(tally.accepted),
                "same": tally.same,
                "refused": len(tally.errors),
                "ids": [request_id for _, request_id in tally.accepted],
                "statuses": dict(tally.statuses),
                "errors": tally.errors,
            }
        )
        return
    click.echo(f"{len(tally.accepted)} accepted ({tally.same} of them before), {len(tally.errors)} refused")
    if tally.statuses:
        print_table("Results", ("status", "count"), tally.statuses.most_common())
