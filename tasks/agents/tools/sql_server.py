"""Runs one reading statement on a database server, by SQLAlchemy, in a transaction that the server keeps read-only.

Only servers whose way of doing so is known here, and checked after it was asked for. SQLAlchemy is imported when a
query runs: who has no server does not need it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from tasks.access.cuts import whole_words
from tasks.agents.tools.credentials import filled, strike, values
from tasks.agents.tools.sql_database import Limits, Rows
from tasks.errors import NotReady, SettingsError, ToolError, ToolUnavailable
from tasks.log import get_logger

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

log = get_logger()

_KEY: Final = "tools.sql_parser.database"
_MAX_ERROR: Final = 300
_MAX_COLUMNS: Final = 400
_MAX_DESCRIPTION: Final = 4000
_SLOW: Final = ("statement timeout", "max_statement_time", "maximum statement execution time", "query_timeout")


@dataclass(frozen=True)
class Kind:
    """How a kind of server is read. ``opening`` is said on each connection, ``begin`` first in the transaction.

    In these ``{ms}`` and ``{s}`` stand for the limit of time, in whole milliseconds and seconds. ``either`` has further
    statements of which one must succeed. ``proof`` returns rows in which one cell has to be ``on``.
    """

    dialect: str
    drivers: Mapping[str, str]
    opening: Sequence[str]
    begin: str
    proof: str
    columns: str
    either: Sequence[str] = ()


_POSTGRES: Final = Kind(
    dialect="postgres",
    drivers={"psycopg": "connect_timeout", "psycopg2": "connect_timeout", "pg8000": "timeout"},
    opening=(
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SET default_transaction_read_only = on",
        "SET statement_timeout = {ms}",
        "SET lock_timeout = {ms}",
        "SET idle_in_transaction_session_timeout = {ms}",
        # What was generated here must be read as it was meant.
        "SET standard_conforming_strings = on",
    ),
    begin="SET TRANSACTION READ ONLY",
    proof="SHOW transaction_read_only",
    columns=(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = ANY (current_schemas(false))"
        " ORDER BY table_name, ordinal_position LIMIT {columns}"
    ),
)
_MYSQL: Final = Kind(
    dialect="mysql",
    drivers={"pymysql": "connect_timeout", "mysqldb": "connect_timeout"},
    opening=(
        "SET SESSION sql_mode = 'STRICT_TRANS_TABLES'",
        "SET SESSION lock_wait_timeout = {s}",
        "SET SESSION TRANSACTION READ ONLY",
    ),
    # MySQL and MariaDB, in this order.
    either=("SET SESSION max_execution_time = {ms}", "SET SESSION max_statement_time = {s}"),
    begin="START TRANSACTION READ ONLY",
    proof="SHOW SESSION VARIABLES WHERE Variable_name IN ('transaction_read_only', 'tx_read_only')",
    columns=(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE()"
        " ORDER BY table_name, ordinal_position LIMIT {columns}"
    ),
)
_KINDS: Final[Mapping[str, Kind]] = {"postgresql": _POSTGRES, "mysql": _MYSQL, "mariadb": _MYSQL}
_FIRST_DRIVERS: Final = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}


class ServerDatabase:
    """The :class:`~tasks.agents.tools.sql_database.Source` at a SQLAlchemy URL, in which ``${NAME}`` is a variable.

    Raises:
        SettingsError: the URL names no server that is known to be readable only, or a variable that is not set.
        NotReady: SQLAlchemy is not installed.
    """

    explain = "EXPLAIN "

    def __init__(self, template: str, environ: Mapping[str, str], limits: Limits) -> None:
        self._url = filled(template, environ, where=_KEY)
        self._secrets = values(template, environ)
        self._limits = limits
        scheme, _, rest = self._url.partition("://")
        backend, _, driver = scheme.partition("+")
        kind = _KINDS.get(backend)
        driver = driver or _FIRST_DRIVERS.get(backend, "")
        if kind is None or driver not in kind.drivers:
            known = sorted(f"{name}+{each}" for name, kind in _KINDS.items() for each in kind.drivers)
            raise SettingsError(
                f"{_KEY}: how to open {scheme!r} for reading only is not known; known: sqlite, {', '.join(known)}"
            )
        if find_spec("sqlalchemy") is None:
            raise NotReady(f"{_KEY}: {backend} needs SQLAlchemy and {driver}: pip install 'sluice[sql]'")
        self._scheme, self._rest = f"{backend}+{driver}", rest
        self._kind = kind
        self._patience = kind.drivers[driver]
        self.dialect = kind.dialect

    @cached_property
    def _engine(self) -> Engine:
        from sqlalchemy import create_engine
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError
        from sqlalchemy.pool import NullPool

        try:
            return create_engine(
                f"{self._scheme}://{self._rest}",
                # Nothing that a query left behind may reach the next one.
                poolclass=NullPool,
                connect_args={self._patience: math.ceil(self._limits.seconds)},
            )
        except (ImportError, NoSuchModuleError) as error:
            raise NotReady(f"{_KEY}: {self._scheme} is not installed: pip install 'sluice[sql]'") from error
        except ArgumentError as error:
            raise SettingsError(f"{_KEY}: is not a SQLAlchemy URL") from error

    def connect(self) -> Connection:
        """See :class:`~tasks.agents.tools.sql_database.Source`."""
        from sqlalchemy.exc import SQLAlchemyError

        connection = None
        try:
            connection = self._engine.connect().execution_options(no_parameters=True)
            self._close_to_writing(connection)
        except SQLAlchemyError as error:
            if connection is not None:
                connection.close()
            # Without the driver's words, which name hosts and users.
            log.warning("the database does not answer", error=self._told(error))
            raise ToolUnavailable("the database does not answer now") from error
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        return connection

    def _close_to_writing(self, connection: Connection) -> None:
        spans = {"ms": math.ceil(self._limits.seconds * 1000), "s": math.ceil(self._limits.seconds)}
        for statement in self._kind.opening:
            connection.exec_driver_sql(statement.format(**spans))
        if self._kind.either:
            self._first_that_works(connection, [statement.format(**spans) for statement in self._kind.either])
        connection.commit()
        connection.exec_driver_sql(self._kind.begin)
        proof = connection.exec_driver_sql(self._kind.proof).fetchall()
        if not any(str(value).lower() == "on" for row in proof for value in row):
            raise ToolUnavailable("the database cannot be opened for reading only")

    def _first_that_works(self, connection: Connection, statements: Sequence[str]) -> None:
        from sqlalchemy.exc import DBAPIError

        for statement in statements[:-1]:
            try:
                connection.exec_driver_sql(statement)
            except DBAPIError:
                continue
            return
        connection.exec_driver_sql(statements[-1])

    def query(self, connection: Connection, sql: str) -> Rows:
        """See :class:`~tasks.agents.tools.sql_database.Source`."""
        from sqlalchemy.exc import DBAPIError, SQLAlchemyError

        # A cursor on the server: a large result is not fetched only to be cut. An explanation cannot have one.
        streams = not sql.startswith(self.explain)
        options = {"stream_results": streams, "max_row_buffer": 10}
        try:
            with connection.execution_options(**options).exec_driver_sql(sql) as result:
                return self._limits.keep(result.keys(), result)
        except DBAPIError as error:
            told = self._told(error.orig or error)
            if any(sign in told for sign in _SLOW):
                raise ToolError(f"the query took longer than {self._limits.seconds:g} s and was stopped") from error
            raise ToolError(f"the query failed: {told}") from error
        except (SQLAlchemyError, ValueError, OverflowError) as error:
            raise ToolError(f"the query failed: {self._told(error)}") from error

    def interrupt(self, connection: Connection) -> None:
        """See :class:`~tasks.agents.tools.sql_database.Source`. Where the driver cannot, the server's limit ends it."""
        cancel = getattr(connection.connection.driver_connection, "cancel", None)
        if cancel is not None:
            cancel()

    def close(self, connection: Connection) -> None:
        """See :class:`~tasks.agents.tools.sql_database.Source`."""
        connection.close()

    def describe(self) -> str:
        """See :class:`~tasks.agents.tools.sql_database.Source`; raises :class:`ToolError`."""
        connection = self.connect()
        try:
            many = Limits(_MAX_COLUMNS, 10 * _MAX_DESCRIPTION, self._limits.seconds)
            with connection.exec_driver_sql(self._kind.columns.format(columns=_MAX_COLUMNS)) as result:
                found = many.keep(result.keys(), result)
        finally:
            self.close(connection)
        tables: dict[Any, list[str]] = {}
        for table, column in found.rows:
            tables.setdefault(table, []).append(str(column))
        text = "; ".join(f"{table}({', '.join(columns)})" for table, columns in tables.items())
        return text[:_MAX_DESCRIPTION] or "none"

    def _told(self, error: BaseException) -> str:
        return whole_words(strike(" ".join(str(error).split()), self._secrets), _MAX_ERROR)
