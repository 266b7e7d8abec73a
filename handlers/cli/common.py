"""What the commands share: settings, output, tables, the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import orjson

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


def teller(*, quiet: bool) -> Callable[[str], None]:
    """Return what reports progress on standard error, or does not."""
    return (lambda line: None) if quiet else (lambda line: click.echo(f"  {line}", err=True))
