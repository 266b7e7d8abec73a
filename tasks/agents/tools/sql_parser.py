"""``sql_parser``: parses, validates, explains and runs SQL that only reads."""

from __future__ import annotations

import asyncio
import sqlite3
from functools import cached_property
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from tasks.agents.tools.base import Tool, ToolArguments, ToolResult
from tasks.agents.tools.sql_database import Cell, Database, Rows
from tasks.agents.tools.sql_guard import MAX_SQL_CHARACTERS, Statement, read_statement, to_sqlite
from tasks.errors import ToolError
from tasks.settings import SqlToolSettings

Mode = Literal["run", "validate", "explain", "parse"]
_EXPLAIN: Final = "EXPLAIN QUERY PLAN "


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

    name: ClassVar[str] = "sql_parser"
    arguments = SqlArguments

    def __init__(self, settings: SqlToolSettings) -> None:
        self._database = Database(
            settings.database, max_rows=settings.max_rows, timeout_seconds=settings.timeout_seconds
        )

    @cached_property
    def description(self) -> str:
        """What it does, with the database's tables."""
        return f"Parse, validate, explain or run one read-only SQL query. Tables: {self._database.describe()}."

    async def call(self, arguments: SqlArguments) -> SqlResult:
        """Do what ``arguments.mode`` says. ``parse`` and ``validate`` report problems, the others fail.

        Raises:
            ToolError: the statement is refused, is wrong, or takes too long.
        """
        connection = await asyncio.to_thread(self._database.connect)
        work = asyncio.ensure_future(asyncio.to_thread(self._work, connection, arguments))
        # The thread owns the connection to its end: closing it under a running query is undefined.
        work.add_done_callback(lambda _: connection.close())
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            work.add_done_callback(lambda done: done.cancelled() or done.exception())
            connection.interrupt()
            raise

    def _work(self, connection: sqlite3.Connection, arguments: SqlArguments) -> SqlResult:
        statement = read_statement(arguments.sql, arguments.dialect)
        if arguments.mode == "parse":
            return _result(statement)
        if arguments.mode == "validate":
            return self._validate(connection, statement)
        if not statement.allowed:
            raise ToolError("; ".join(statement.problems))
        explain = arguments.mode == "explain" or statement.explain
        return _result(statement, self._query(connection, statement, explain=explain))

    def _validate(self, connection: sqlite3.Connection, statement: Statement) -> SqlResult:
        if not statement.allowed:
            return _result(statement)
        try:
            # SQLite checks tables, columns and functions while it compiles; explaining runs nothing.
            self._query(connection, statement, explain=True)
        except ToolError as error:
            return _result(statement, problem=str(error))
        return _result(statement)

    def _query(self, connection: sqlite3.Connection, statement: Statement, *, explain: bool) -> Rows:
        try:
            sql = to_sqlite(statement)
        except ValueError as error:
            raise ToolError(str(error)) from error
        return self._database.query(connection, _EXPLAIN + sql if explain else sql)


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
