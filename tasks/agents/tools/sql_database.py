"""Runs one reading statement on SQLite behind four fences, none of which trusts the others.

The database is opened read-only (or is a private copy in memory), ``query_only`` is on, an authoriser refuses
all but reading, and limits bound time, rows, cells and memory.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar
from urllib.parse import quote

from tasks.agents.tools.sql_shop import shop
from tasks.errors import SettingsError, ToolError, ToolUnavailable

MAX_CELL_CHARACTERS: Final = 500
_MAX_VALUE_BYTES: Final = 200_000
_STEPS_BETWEEN_LOOKS: Final = 2000

_ALLOWED_ACTIONS: Final = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
# Named one by one: printf('%.*c', 1e9, 'x') computes for seconds in one step, where nothing can stop it, and
# what an extension adds is unknown.
_ALLOWED_FUNCTIONS: Final = frozenset(
    """
    abs acos acosh asin asinh atan atan2 atanh avg ceil ceiling char coalesce concat concat_ws cos cosh
    count cume_dist current_date current_time current_timestamp date datetime degrees dense_rank exp
    first_value floor glob group_concat hex if ifnull iif instr json json_array json_array_length
    json_each json_extract json_group_array json_group_object json_object json_quote json_type
    json_valid julianday lag last_value lead length like likelihood likely ln log log10 log2 lower ltrim
    max min mod nth_value ntile nullif octet_length percent_rank pi pow power quote radians random rank
    replace round row_number rtrim sign sin sinh sqrt strftime string_agg substr substring sum tan tanh
    time timediff total trim trunc typeof unhex unicode unixepoch unlikely upper -> ->>
    """.split()  # noqa: SIM905 - eighty lines otherwise
)
_LIMITS: Final = {
    sqlite3.SQLITE_LIMIT_LENGTH: _MAX_VALUE_BYTES,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 64 * 1024,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    # A pattern of many wildcards takes exponential time inside one step, where no clock is looked at.
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 200,
}

Cell = str | int | float | None
Connection = TypeVar("Connection")


@dataclass(frozen=True, slots=True)
class Rows:
    """What a query returned; ``truncated`` where there was more."""

    names: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one query: rows, the bytes of their text, and seconds."""

    rows: int
    bytes: int
    seconds: float

    def keep(self, names: Iterable[str], rows: Iterable[Sequence[object]]) -> Rows:
        """Return what of ``rows`` is within the bounds; no more than one row beyond is taken."""
        kept: list[tuple[Cell, ...]] = []
        size = 0
        for row in rows:
            cells = tuple(cell(value) for value in row)
            size += sum(len(str(value).encode("utf-8", "replace")) for value in cells)
            if len(kept) == self.rows or size > self.bytes:
                return Rows(tuple(names), tuple(kept), truncated=True)
            kept.append(cells)
        return Rows(tuple(names), tuple(kept), truncated=False)


class Source(Protocol[Connection]):
    """A database that is only read. Opens a connection for each query. The methods block, in a worker thread.

    ``dialect`` is what sqlglot calls its SQL, ``explain`` stands before a query that is explained.
    """

    dialect: str
    explain: str

    def connect(self) -> Connection:
        """Return a connection on which nothing can be written; the caller closes it.

        Raises:
            ToolUnavailable: the database does not answer.
        """

    def query(self, connection: Connection, sql: str) -> Rows:
        """Run ``sql`` within the limits; raises :class:`ToolError`."""

    def interrupt(self, connection: Connection) -> None:
        """End what runs on ``connection``, from another thread."""

    def close(self, connection: Connection) -> None:
        """Close ``connection``."""

    def describe(self) -> str:
        """Return tables and their columns in one line, for the tool's description."""


class Database:
    """A SQLite file, or the sample shop where ``path`` is ``None``: a :class:`Source`."""

    dialect = "sqlite"
    explain = "EXPLAIN QUERY PLAN "

    def __init__(self, path: Path | None, limits: Limits) -> None:
        self._path = path
        self._limits = limits

    def connect(self) -> sqlite3.Connection:
        """Return a fenced connection. Another thread may interrupt it; the caller closes it.

        Raises:
            ToolUnavailable: the database cannot be opened.
        """
        connection = self._open()
        connection.set_authorizer(_authorise)
        return connection

    def _open(self) -> sqlite3.Connection:
        try:
            if self._path is None:
                connection = sqlite3.connect(":memory:", check_same_thread=False)
                connection.deserialize(shop())
            else:
                uri = f"file:{quote(str(self._path.resolve()))}?mode=ro"
                connection = sqlite3.connect(uri, uri=True, check_same_thread=False, timeout=self._limits.seconds)
        except sqlite3.Error as error:
            raise ToolUnavailable(f"the database cannot be opened: {error}") from error
        connection.execute("PRAGMA query_only = ON")
        for limit, value in _LIMITS.items():
            connection.setlimit(limit, value)
        return connection

    def interrupt(self, connection: sqlite3.Connection) -> None:
        """See :class:`Source`."""
        connection.interrupt()

    def close(self, connection: sqlite3.Connection) -> None:
        """See :class:`Source`."""
        connection.close()

    def query(self, connection: sqlite3.Connection, sql: str) -> Rows:
        """Run ``sql`` on ``connection`` and return as many rows as the limits allow.

        Raises:
            ToolError: it does not run, takes too long, or does more than read.
        """
        ends = time.monotonic() + self._limits.seconds
        connection.set_progress_handler(lambda: time.monotonic() > ends, _STEPS_BETWEEN_LOOKS)
        try:
            cursor = connection.execute(sql)
            return self._limits.keep((column[0] for column in cursor.description or ()), cursor)
        except sqlite3.OperationalError as error:
            if "interrupted" in str(error):
                raise ToolError(f"the query took longer than {self._limits.seconds:g} s and was stopped") from error
            raise ToolError(f"the query failed: {error}") from error
        except (sqlite3.Error, sqlite3.Warning, OverflowError, UnicodeError) as error:
            raise ToolError(f"the query failed: {error}") from error

    def describe(self) -> str:
        """Return the tables and their columns in one line, for the tool's description.

        Raises:
            SettingsError: the file is not a SQLite database that can be read.
        """
        try:
            # Without the authoriser: it refuses pragmas, in which SQLite keeps the names of columns.
            connection = self._open()
        except ToolError as error:
            raise SettingsError(f"tools.sql_parser.database: {self._path}: {error}") from error
        try:
            found = self.query(
                connection,
                "SELECT m.name, group_concat(c.name, ', ') FROM sqlite_master m, pragma_table_info(m.name) c "
                "WHERE m.type IN ('table', 'view') AND m.name NOT LIKE 'sqlite%' GROUP BY m.name "
                "ORDER BY m.name",
            )
        except ToolError as error:
            raise SettingsError(f"tools.sql_parser.database: {self._path}: {error}") from error
        finally:
            connection.close()
        return "; ".join(f"{name}({columns})" for name, columns in found.rows)


def _authorise(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    if action not in _ALLOWED_ACTIONS:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() not in _ALLOWED_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def cell(value: object) -> Cell:
    """Return ``value`` as an agent reads it: numbers as they are, all else as bounded text."""
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, bytes | memoryview):
        return f"<{len(value)} bytes>"
    text = json.dumps(value, default=str) if isinstance(value, dict | list) else str(value)
    return text[:MAX_CELL_CHARACTERS] + "…" if len(text) > MAX_CELL_CHARACTERS else text
