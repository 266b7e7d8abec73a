"""``sql_parser``: parses, validates, explains and runs SQL that only reads."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from tasks.agents.tools.base import Effect, Tool, ToolArguments, ToolContext, ToolResult
from tasks.agents.tools.sql_database import Cell, Database, Limits, Rows, Source
from tasks.agents.tools.sql_guard import MAX_SQL_CHARACTERS, Statement, read_statement, render
from tasks.errors import ToolError, ToolRefused
from tasks.log import get_logger
from tasks.settings import SqlToolSettings

log = get_logger()

Mode = Literal["run", "validate", "explain", "parse"]
_SQLITE: Final = "sqlite:///"
_LOOK_AGAIN_SECONDS: Final = 30.0
"""How long a server that did not say what tables it has is left alone."""


class SqlArguments(ToolArguments):
    """``dialect`` is the name of a SQL dialect; without it, it is found out."""

    sql: Annotated[str, Field(min_length=1, max_length=MAX_SQL_CHARACTERS, description="one SQL query")]
    mode: Annotated[Mode, Field(description="run it, or only parse, validate or explain it")] = "run"
    dialect: Annotated[str | None, Field(description="e.g. sqlite, postgres, mysql")] = None


class SqlResult(ToolResult):
    """What the statement is, what is wrong with it, and, for ``run`` and ``explain``, its rows.

    ``sql`` is the statement, formatted in its own dialect. ``truncated``: there were more rows.
    """

    statement: str
    dialect: str = ""
    valid: bool
    problems: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    sql: str = ""
    column_names: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()
    truncated: bool = False


class SqlParser(Tool[SqlArguments]):
    """The tool. Its work is done in a worker thread; a cancelled call stops its query."""

    name = "sql_parser"
    arguments = SqlArguments
    effect = Effect.READ
    description = ""

    def __init__(self, settings: SqlToolSettings, *, environ: Mapping[str, str] | None = None) -> None:
        self._functions = settings.allowed_functions
        self._source = _source(settings, os.environ if environ is None else environ)
        self._looking = asyncio.Lock()
        self._look_at = 0.0
        self._tables = ""

    async def prepare(self) -> None:
        """Find out the tables; where a server does not answer, do without them for a while.

        Raises:
            SettingsError: the file is not a SQLite database that can be read.
        """
        if self._tables:
            return
        async with self._looking:
            if not self._tables and time.monotonic() >= self._look_at:
                await self._look()

    async def _look(self) -> None:
        try:
            self._tables = await asyncio.to_thread(self._source.describe)
        except ToolError:
            self._look_at = time.monotonic() + _LOOK_AGAIN_SECONDS
            log.warning("the tables of the database are not known: agents have to guess them")
        known = f" Tables: {self._tables}." if self._tables else ""
        self.description = f"Parse, validate, explain or run one read-only SQL query.{known}"
        self.__dict__.pop("schema", None)

    async def call(self, arguments: SqlArguments, context: ToolContext) -> SqlResult:
        """Do what ``arguments.mode`` says. ``parse`` and ``validate`` report problems, the others fail.

        Raises:
            ToolRefused: the statement does more than read.
            ToolError: it is wrong, takes too long, or the database does not answer.
        """
        # Before there is a connection: what is refused costs the database nothing.
        statement = await asyncio.to_thread(
            read_statement,
            arguments.sql,
            arguments.dialect,
            home="" if self._source.dialect == "sqlite" else self._source.dialect,
            functions=self._functions,
        )
        if arguments.mode == "parse" or (arguments.mode == "validate" and not statement.allowed):
            return _result(statement)
        if not statement.allowed:
            raise ToolRefused("; ".join(statement.problems))
        connection = await asyncio.to_thread(self._source.connect)
        work = asyncio.ensure_future(asyncio.to_thread(self._work, connection, statement, arguments.mode))
        # The thread owns the connection to its end: closing it under a running query is undefined.
        work.add_done_callback(lambda _: self._source.close(connection))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            work.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._source.interrupt(connection)
            raise

    def _work(self, connection: Any, statement: Statement, mode: Mode) -> SqlResult:
        if mode == "validate":
            return self._validate(connection, statement)
        return _result(statement, self._query(connection, statement, explain=mode == "explain" or statement.explain))

    def _validate(self, connection: Any, statement: Statement) -> SqlResult:
        try:
            # Tables, columns and functions are checked while it is planned; explaining runs nothing.
            self._query(connection, statement, explain=True)
        except ToolError as error:
            return _result(statement, problem=str(error))
        return _result(statement)

    def _query(self, connection: Any, statement: Statement, *, explain: bool) -> Rows:
        try:
            sql = render(statement, self._source.dialect, functions=self._functions)
        except ValueError as error:
            raise ToolRefused(str(error)) from error
        return self._source.query(connection, self._source.explain + sql if explain else sql)


def _source(settings: SqlToolSettings, environ: Mapping[str, str]) -> Source[Any]:
    limits = Limits(settings.max_rows, settings.max_bytes, settings.timeout_seconds)
    place = settings.database
    if place is None:
        return Database(None, limits)
    if place.startswith(_SQLITE):
        return Database(Path(place.removeprefix(_SQLITE)), limits)
    if "://" not in place:
        return Database(Path(place), limits)
    from tasks.agents.tools.sql_server import ServerDatabase

    return ServerDatabase(place, environ, limits)


def _result(statement: Statement, rows: Rows | None = None, *, problem: str = "") -> SqlResult:
    problems = (*statement.problems, problem) if problem else statement.problems
    return SqlResult(
        statement=statement.kind,
        dialect=statement.dialect,
        valid=not problems,
        problems=problems,
        tables=statement.tables,
        columns=statement.columns,
        sql=statement.formatted,
        column_names=rows.names if rows else (),
        rows=rows.rows if rows else (),
        truncated=bool(rows and rows.truncated),
    )
