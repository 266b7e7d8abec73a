"""What the commands share: settings, output, tables, the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

import click
import orjson

from tasks.contracts.base import ID_CHARACTERS, TENANT_CHARACTERS
from tasks.errors import AlreadyExists, NotFound, NotReady, StoreError, Unreachable
from tasks.settings import Settings
from tasks.settings_load import load

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def settings_of(ctx: click.Context) -> Settings:
    """Load the settings that ``--config`` names, and set up the logs."""
    from tasks import logs
    from tasks.access.redact import Redactor

    config: Path | None = ctx.find_root().obj
    settings = load(config)
    logs.configure(settings.log_level, Redactor.of(settings.auditing))
    return settings


def print_json(value: Any) -> None:
    """Print one JSON document to standard output."""
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def console(*, err: bool = False) -> Console:
    """Return a terminal writer. Narrow pipes must not fold tables, so what is not a terminal is wide."""
    from rich.console import Console

    made = Console(stderr=err, highlight=False)
    return made if made.is_terminal else Console(stderr=err, highlight=False, width=220)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table to standard output."""
    from rich.table import Table
    from rich.text import Text

    made = console()
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(str(cell), keep="\n")) for cell in row))
    made.print(table)


def visible(text: str, *, keep: str = "") -> str:
    """Return ``text`` with escapes for what a terminal would obey: others chose names of objects and requests."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode() for char in text
    )


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine; see :func:`naming_the_mend`."""
    with naming_the_mend():
        return asyncio.run(work)


async def until_told(work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` until it ends or the process is told to stop."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


@contextlib.contextmanager
def naming_the_mend() -> Iterator[None]:
    """Turn the error of a server that cannot be reached into one that says what to do about it."""
    try:
        yield
    except (AlreadyExists, NotFound):
        raise
    except StoreError as error:
        kind = NotReady if isinstance(error, Unreachable) else StoreError
        raise kind(f"{error} (is the stack up? `sluice up` starts it, `sluice doctor` looks)") from error


def ago(seconds: float) -> str:
    """Return how long ago something was, as people say it."""
    whole = max(int(seconds), 0)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole >= 2 * size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def teller(*, quiet: bool) -> Callable[[str], None]:
    """Return what reports progress on standard error, or does not."""
    return (lambda line: None) if quiet else (lambda line: click.echo(f"  {line}", err=True))


@contextlib.contextmanager
def bar(name: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Yield what shows (done, of how many) on standard error, or does not."""
    if quiet:
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(err=True), refresh_per_second=2, transient=True) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total or None)


class Name(click.ParamType[str]):
    """Something that stands in an object key, such as an id or a tenant."""

    name = "name"

    def __init__(self, characters: str) -> None:
        self._pattern = re.compile(characters)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name as it is."""
        if not self._pattern.fullmatch(str(value)):
            self.fail(f"{value!r} has characters other than {self._pattern.pattern}", param, ctx)
        return str(value)


ID: Final = Name(ID_CHARACTERS)
tenant_of_option = click.option("--tenant", type=Name(TENANT_CHARACTERS), default="default", show_default=True)


class Age(click.ParamType[timedelta]):
    """A time span: ``90s``, ``30m``, ``12h``, ``7d``."""

    name = "age"
    _units: ClassVar = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the time span."""
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"([0-9]{1,6})([smhd])", str(value).strip())
        if not found:
            self.fail(f"{value!r} is no time span: write 90s, 30m, 12h or 7d", param, ctx)
        return timedelta(**{self._units[found[2]]: int(found[1])})
