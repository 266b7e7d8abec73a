"""The tools on real SQLite files and real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tasks.agents.tools.api_caller import ApiArguments, ApiCaller
from tasks.agents.tools.base import ToolContext
from tasks.agents.tools.sql_database import Database, Limits
from tasks.agents.tools.sql_parser import SqlArguments, SqlParser
from tasks.errors import SettingsError, ToolError, ToolRefused
from tasks.settings import ApiToolSettings, SqlToolSettings
from tasks.settings_load import parse

NOBODY = ToolContext()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        replies = {
            "/json": (200, "application/json", json.dumps({"host": self.headers["Host"]}).encode(), {}),
            "/large": (200, "text/plain", b"x" * 100_000, {}),
            "/missing": (404, "text/plain", b"gone", {}),
            "/away": (302, "text/plain", b"", {"Location": "http://169.254.169.254/"}),
            "/packed": (200, "text/plain", gzip.compress(b"x" * 1_000_000), {"Content-Encoding": "gzip"}),
            "/binary": (200, "image/png", b"\x89PNG", {}),
            "/charset": (200, "text/plain; charset=nonsense", "é".encode(), {}),
        }
        if self.path == "/slow":
            time.sleep(1)
        status, kind, body, headers = replies.get(self.path, (200, "text/plain", b"ok", {}))
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def caller(port: int) -> ApiCaller:
    return ApiCaller(
        ApiToolSettings(
            allowed_hosts=(f"127.0.0.1:{port}", f"localhost:{port}", f"rebound.example:{port}"),
            allowed_methods=("GET", "POST"),
            timeout_seconds=0.5,
            max_bytes=1000,
        )
    )


async def test_json_text_status_and_body_come_back(caller: ApiCaller, port: int) -> None:
    base = f"http://127.0.0.1:{port}"

    assert (await caller.call(ApiArguments(url=f"{base}/json"), NOBODY)).json_body == {"host": f"127.0.0.1:{port}"}
    missing = await caller.call(ApiArguments(url=f"{base}/missing"), NOBODY)
    assert (missing.status, missing.text) == (404, "gone")
    made = await caller.call(ApiArguments(url=base, method="post", body={"a": [1]}), NOBODY)
    assert (made.status, made.json_body) == (201, {"a": [1]})
    assert (await caller.call(ApiArguments(url=f"http://localhost:{port}/json"), NOBODY)).json_body == {
        "host": f"localhost:{port}"
    }
    assert "4 bytes of image/png" in (await caller.call(ApiArguments(url=f"{base}/binary"), NOBODY)).text
    assert (await caller.call(ApiArguments(url=f"{base}/charset"), NOBODY)).text == "é"


async def test_limits_hold(caller: ApiCaller, port: int) -> None:
    base = f"http://127.0.0.1:{port}"

    large = await caller.call(ApiArguments(url=f"{base}/large"), NOBODY)
    assert (len(large.text), large.truncated) == (1000, True)
    with pytest.raises(ToolRefused, match=r"169\.254\.169\.254:80 is not an allowed host"):
        await caller.call(ApiArguments(url=f"{base}/away"), NOBODY)
    packed = await caller.call(ApiArguments(url=f"{base}/packed"), NOBODY)
    assert "encoded as gzip" in packed.text
    with pytest.raises(ToolError, match=r"no answer within 0\.5 s"):
        await caller.call(ApiArguments(url=f"{base}/slow"), NOBODY)


async def test_a_name_that_is_rebound_after_the_check_is_not_followed(port: int) -> None:
    answers = [["93.184.216.34"], ["127.0.0.1"]]

    async def resolve(host: str, _: int) -> list[str]:
        return answers.pop(0)

    settings = ApiToolSettings(allowed_hosts=(f"rebound.example:{port}",), timeout_seconds=0.3, retries=0)
    caller = ApiCaller(settings, resolve=resolve)

    with pytest.raises(ToolError):
        await caller.call(ApiArguments(url=f"http://rebound.example:{port}/json"), NOBODY)
    assert len(answers) == 1
    with pytest.raises(ToolError, match="not a public address"):
        await caller.call(ApiArguments(url=f"http://rebound.example:{port}/json"), NOBODY)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "my data?.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (a INTEGER, b TEXT)")
    connection.executemany("INSERT INTO t VALUES (?, ?)", [(i, "x" * 1000) for i in range(20)])
    connection.commit()
    connection.close()
    return path


def _parser(**settings: object) -> SqlParser:
    return SqlParser(
        parse(
            SqlToolSettings,
            {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()},
        )
    )


async def test_the_shop_answers_in_other_dialects() -> None:
    parser = _parser()

    result = await parser.call(SqlArguments(sql="SELECT TOP 2 name FROM products ORDER BY price DESC"), NOBODY)

    assert (result.rows, result.dialect) == ((("Backpack",), ("Blanket",)), "tsql")
    await parser.prepare()
    assert "orders(id, customer_id" in parser.schema["description"]


async def test_rows_and_cells_are_bounded(database: Path) -> None:
    result = await _parser(database=database, max_rows=5).call(SqlArguments(sql="SELECT a, b FROM t"), NOBODY)

    assert (len(result.rows), result.truncated) == (5, True)
    assert len(str(result.rows[0][1])) < 600


async def test_validate_and_explain_run_nothing_but_know_the_tables() -> None:
    parser = _parser()

    wrong = await parser.call(SqlArguments(sql="SELECT nope FROM orders", mode="validate"), NOBODY)
    assert (wrong.valid, wrong.problems) == (False, ("the query failed: no such column: nope",))
    assert (await parser.call(SqlArguments(sql="SELECT id FROM orders", mode="validate"), NOBODY)).valid
    assert not (await parser.call(SqlArguments(sql="DROP TABLE orders", mode="parse"), NOBODY)).valid
    plan = await parser.call(SqlArguments(sql="SELECT id FROM orders", mode="explain"), NOBODY)
    assert "SCAN" in str(plan.rows)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT load_extension('x')",
        "SELECT printf('%.*c', 999999999, 'x')",
        "SELECT randomblob(1000000000)",
        "SELECT * FROM pragma_table_info('t')",
        "DELETE FROM t",
    ],
)
async def test_what_is_not_reading_is_refused(database: Path, sql: str) -> None:
    with pytest.raises(ToolError):
        await _parser(database=database).call(SqlArguments(sql=sql), NOBODY)


@pytest.mark.parametrize("path", [None, "file"])
@pytest.mark.parametrize(
    "sql", ["DELETE FROM t", "DROP TABLE t", "CREATE TABLE x (a)", "PRAGMA query_only = OFF", "ATTACH 'x.db' AS x"]
)
def test_the_database_itself_refuses_to_write(database: Path, sql: str, path: str | None) -> None:
    """Past the guard: what a hole in the parser would let through."""
    fenced = Database(database if path else None, Limits(5, 10_000, 1))
    connection = fenced.connect()
    try:
        with pytest.raises(ToolError):
            fenced.query(connection, sql)
    finally:
        connection.close()


async def test_an_endless_query_is_stopped_by_the_clock_and_by_cancelling() -> None:
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
    with pytest.raises(ToolError, match=r"longer than 0\.2 s"):
        await _parser(timeout_seconds=0.2).call(SqlArguments(sql=endless), NOBODY)

    work = asyncio.ensure_future(_parser(timeout_seconds=30).call(SqlArguments(sql=endless), NOBODY))
    await asyncio.sleep(0.2)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    started = time.monotonic()
    await asyncio.get_running_loop().shutdown_default_executor()
    assert time.monotonic() - started < 10


async def test_a_missing_database_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"tools\.sql_parser\.database"):
        await _parser(database=tmp_path / "no.db").prepare()
