"""The SQL tool on servers: PostgreSQL for real, MySQL by what is said to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from tasks.agents.tools.base import ToolContext
from tasks.agents.tools.sql_database import Limits
from tasks.agents.tools.sql_parser import SqlArguments, SqlParser
from tasks.agents.tools.sql_server import ServerDatabase
from tasks.errors import NotReady, SettingsError, ToolError, ToolRefused, ToolUnavailable
from tasks.settings import SqlToolSettings
from tasks.settings_load import parse
from tests.support import postgres
from tests.support.hostile_sql import HOSTILE

NOBODY = ToolContext()
LIMITS = Limits(5, 10_000, 2)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgres.serving() as url:
        with _owner(url) as owner:
            owner.execute("CREATE TABLE customers (id serial, name text, since date, paid numeric, tags jsonb)")
            owner.execute(
                "INSERT INTO customers (name, since, paid, tags) SELECT 'c' || n, '2025-01-02', n + 0.5, '[1]'"
                " FROM generate_series(1, 20) n"
            )
        yield url


def _owner(url: str) -> Any:
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def _parser(url: str, **settings: object) -> SqlParser:
    return SqlParser(parse(SqlToolSettings, {"database": url, "timeout_seconds": 2, **settings}), environ={})


async def test_a_query_is_answered_within_its_limits(url: str) -> None:
    parser = _parser(url, max_rows=3)
    await parser.prepare()
    assert "customers(id, name, since, paid, tags)" in parser.schema["description"]
    result = await parser.call(
        SqlArguments(sql="SELECT id, name, since, paid, tags FROM customers ORDER BY id"), NOBODY
    )
    assert result.rows[0] == (1, "c1", "2025-01-02", "1.5", "[1]")
    assert (len(result.rows), result.truncated, result.dialect) == (3, True, "postgres")
    few = await _parser(url, max_bytes=40).call(SqlArguments(sql="SELECT name, since FROM customers"), NOBODY)
    assert (len(few.rows), few.truncated) == (3, True)
    other = await parser.call(SqlArguments(sql="SELECT TOP 2 [name] FROM customers ORDER BY id"), NOBODY)
    assert (other.rows, other.dialect) == ((("c1",), ("c2",)), "tsql")
    percent = await parser.call(
        SqlArguments(sql="SELECT name FROM customers WHERE name LIKE 'c1%' AND id % 10 = 1"), NOBODY
    )
    assert percent.rows == (("c1",), ("c11",))


async def test_explaining_and_validating_run_nothing_but_know_the_tables(url: str) -> None:
    parser = _parser(url)
    plan = await parser.call(SqlArguments(sql="EXPLAIN SELECT * FROM customers"), NOBODY)
    assert "Seq Scan" in str(plan.rows)
    wrong = await parser.call(SqlArguments(sql="SELECT nope FROM customers", mode="validate"), NOBODY)
    assert 'column "nope" does not exist' in wrong.problems[0]


@pytest.mark.parametrize("sql", HOSTILE)
async def test_a_hostile_statement_changes_nothing(url: str, sql: str) -> None:
    if len(sql) > 8192:
        pytest.skip("refused by its length, before the tool")
    with pytest.raises(ToolRefused):
        await _parser(url).call(SqlArguments(sql=sql), NOBODY)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM customers",
        "CREATE TABLE x (a int)",
        "SELECT nextval('customers_id_seq')",
        "SELECT query_to_xml('delete from customers', true, true, '')",
        "SELECT set_config('transaction_read_only', 'off', true) FROM customers",
        "WITH gone AS (DELETE FROM customers RETURNING *) SELECT * FROM gone",
    ],
)
def test_the_server_itself_refuses_to_write(url: str, sql: str) -> None:
    """Past the guard, as a superuser: what a hole in the parser would let through."""
    source = ServerDatabase(url, {}, LIMITS)
    for run in (source.query, lambda connection, sql: connection.exec_driver_sql(sql)):
        connection = source.connect()
        try:
            with pytest.raises((ToolError, DBAPIError)):
                run(connection, sql)
        finally:
            source.close(connection)
    with _owner(url) as owner:
        assert owner.execute("SELECT count(*) FROM customers").fetchone() == (20,)


async def test_a_slow_query_is_stopped_by_the_server_and_by_cancelling(url: str) -> None:
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
    with pytest.raises(ToolError, match=r"longer than 0\.3 s"):
        await _parser(url, timeout_seconds=0.3).call(SqlArguments(sql=endless), NOBODY)
    work = asyncio.ensure_future(_parser(url, timeout_seconds=60).call(SqlArguments(sql=endless), NOBODY))
    await asyncio.sleep(0.5)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    started = time.monotonic()
    await asyncio.get_running_loop().shutdown_default_executor()
    assert time.monotonic() - started < 10


async def test_a_server_that_is_away_is_told_without_its_address(unused_port: int) -> None:
    url = f"postgresql://reader:${{SHOP_PASSWORD}}@127.0.0.1:{unused_port}/shop"
    settings = parse(SqlToolSettings, {"database": url, "timeout_seconds": 2})
    parser = SqlParser(settings, environ={"SHOP_PASSWORD": "hunter2-hunter2"})
    await parser.prepare()
    assert "Tables" not in parser.schema["description"]
    with pytest.raises(ToolUnavailable) as raised:
        await parser.call(SqlArguments(sql="SELECT 1"), NOBODY)
    assert str(raised.value) == "the database does not answer now"


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        (
            "mssql+pyodbc://reader@db.example/shop",
            "'mssql\\+pyodbc' for reading only is not known.*postgresql\\+psycopg",
        ),
        ("oracle://reader@db.example/shop", "for reading only is not known"),
        ("postgresql+asyncpg://reader@db.example/shop", "for reading only is not known"),
        ("postgresql://reader:${NOT_SET}@db.example/shop", "tools.sql_parser.database: .*NOT_SET is not set"),
    ],
)
def test_what_cannot_be_opened_for_reading_only_is_an_error_at_start(place: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        _parser(place)


def test_without_sqlalchemy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.agents.tools.sql_server.find_spec", lambda name: None)
    with pytest.raises(NotReady, match=r"pip install 'sluice\[sql\]'"):
        _parser("mysql://reader@db.example/shop")


def test_a_sqlite_url_is_a_file(tmp_path: Path) -> None:
    import sqlite3

    sqlite3.connect(tmp_path / "a.db").execute("CREATE TABLE t (a)").connection.close()
    assert SqlParser(SqlToolSettings(database=f"sqlite:///{tmp_path}/a.db"))._source.describe() == "t(a)"


class Said:
    """A MySQL that keeps what it is told, and knows no ``unknown`` statement."""

    def __init__(self, *, read_only: str = "ON", unknown: str = "-") -> None:
        self.told: list[str] = []
        self._read_only = read_only
        self._unknown = unknown

    def __call__(self, cursor: Any, statement: str, *_: Any) -> None:
        import pymysql

        self.told.append(statement)
        if self._unknown in statement:
            raise pymysql.err.OperationalError(1193, "Unknown system variable")
        cursor._rows = [("transaction_read_only", self._read_only)] if statement.startswith("SHOW") else []


@pytest.mark.parametrize(
    ("unknown", "limit"), [("-", "max_execution_time = 2000"), ("max_execution_time", "max_statement_time = 2")]
)
def test_mysql_and_mariadb_are_told_to_read_only(unknown: str, limit: str) -> None:
    said = _mysql(Said(unknown=unknown))
    source, told = said
    connection = source.connect()
    source.close(connection)
    assert told.told[-2:] == ["START TRANSACTION READ ONLY", source._kind.proof]
    assert "SET SESSION TRANSACTION READ ONLY" in told.told
    assert f"SET SESSION {limit}" in told.told


def test_a_server_that_does_not_say_that_it_is_read_only_is_not_asked() -> None:
    source, told = _mysql(Said(read_only="OFF"))
    with pytest.raises(ToolUnavailable, match="cannot be opened for reading only"):
        source.connect()
    assert told.told[-1] == source._kind.proof


def _mysql(said: Said) -> tuple[ServerDatabase, Said]:
    """Return a source whose driver is a stand-in for PyMySQL's connections."""
    from unittest.mock import MagicMock

    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    def connect() -> Any:
        connection = MagicMock()

        def cursor(*_: Any) -> Any:
            made = MagicMock(
                description=[(name, None, None, None, None, None, None) for name in "ab"], rowcount=1, _rows=[]
            )
            made.execute.side_effect = lambda statement, *given: said(made, statement, *given)
            made.fetchall.side_effect = lambda: made._rows
            return made

        connection.cursor.side_effect = cursor
        return connection

    source = ServerDatabase("mysql+pymysql://reader@db.example/shop", {}, LIMITS)
    engine = create_engine("mysql+pymysql://", creator=connect, poolclass=NullPool, _initialize=False)
    source.__dict__["_engine"] = engine
    return source, said
