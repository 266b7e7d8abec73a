"""What tools refuse, through the real runner and hop 2: an error that the agent reads, and a record in the audit."""

from __future__ import annotations

import ipaddress
import sqlite3
from pathlib import Path

import httpx
import pytest

from tasks import keys
from tasks.access.outbound import Allowlist, is_public
from tasks.agents.tools.api_caller import ApiCaller
from tasks.agents.tools.sql_guard import read_statement, render
from tasks.attempt import Disposition
from tasks.contracts.audit import AuditRecord
from tasks.settings import AgentSettings, ApiToolSettings, Settings, SqlToolSettings, ToolSettings
from tests.support.hostile_sql import HOSTILE
from tests.support.replay import Line, ReplayModels, runner, wants
from tests.support.world import World

EXECUTOR = keys.agent_pool("executor")


async def called(world: World, models: ReplayModels, **parts: object) -> list[AuditRecord]:
    """Let an executor answer one request; return the records of its tool calls."""
    asked = await world.accept(intent="query_data")
    await world.deliver(world.route(), "requests")
    work = world.work(runner(world.settings, models, **parts), pool=EXECUTOR)  # type: ignore[arg-type]
    assert await world.deliver(work, EXECUTOR) is Disposition.ACK
    result = await world.result(asked)
    assert result is not None
    assert result.status == "succeeded", result.error
    return [record for record in await world.records(asked) if record.action == "tool.called"]


def script(tool: str, **arguments: object) -> tuple[Line, ...]:
    return wants(tool, **arguments), "I could not do that.", "I could not do that."


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE customers (id INTEGER, name TEXT)")
        connection.execute("INSERT INTO customers VALUES (1, 'Ada')")
    connection.close()
    return path


def test_there_are_enough_hostile_statements() -> None:
    assert len(set(HOSTILE)) >= 100


@pytest.mark.parametrize("sql", HOSTILE)
async def test_a_hostile_statement_is_an_error_that_the_agent_reads_and_a_record(
    world: World, database: Path, sql: str
) -> None:
    before = database.read_bytes()
    world.settings = Settings(tools=ToolSettings(sql_parser=SqlToolSettings(database=str(database))))
    models = ReplayModels(*script("sql_parser", sql=sql))
    [record] = await called(world, models)
    [read] = models.read
    assert read.startswith("Error: ")
    assert (record.resource, record.details["ok"], record.reason) == ("tool:sql_parser", False, read)
    # What is too long is refused by its schema, all else by the guard.
    assert (record.decision, record.details["code"]) in {("deny", "tool_refused"), ("allow", "invalid_input")}
    assert database.read_bytes() == before


@pytest.mark.parametrize("home", ["postgres", "mysql"])
@pytest.mark.parametrize("sql", HOSTILE)
def test_a_hostile_statement_is_refused_whatever_the_database_speaks(sql: str, home: str) -> None:
    assert not read_statement(sql, home=home).allowed
    assert not read_statement(sql, home).allowed


def test_a_hint_does_not_reach_a_server() -> None:
    sql = "SELECT /*+ SET_VAR(max_execution_time=0) */ name FROM customers"
    assert not read_statement(sql, "mysql").allowed
    for dialect in ("sqlite", "postgres", "mysql"):
        assert "SET_VAR" not in render(read_statement(sql, "postgres"), dialect)


@pytest.mark.parametrize(
    ("sql", "dialect"),
    [
        ("SELECT date_trunc('month', since) AS m, count(*) FILTER (WHERE city = 'Oslo') FROM c GROUP BY 1", "postgres"),
        ("SELECT name, row_number() OVER (PARTITION BY city ORDER BY total DESC) FROM c", "postgres"),
        ("SELECT data->>'a', jsonb_array_length(data->'b'), string_agg(name, ', ') FROM c GROUP BY 1, 2", "postgres"),
        ("SELECT * FROM generate_series(1, 3) AS n", "postgres"),
        ("SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY total) FROM o", "postgres"),
        ("SELECT DATE_FORMAT(d, '%Y-%m'), GROUP_CONCAT(name), IFNULL(a, 0), DATEDIFF(a, b) FROM t GROUP BY 1", "mysql"),
        ("SELECT strftime('%Y', since), julianday(since), iif(id > 1, 'a', 'b') FROM customers", "sqlite"),
        ("SELECT value FROM json_each('[1]')", "sqlite"),
    ],
)
def test_ordinary_queries_pass_and_are_generated_for_their_own_database(sql: str, dialect: str) -> None:
    statement = read_statement(sql, dialect)
    assert statement.allowed, statement.problems
    assert render(statement, dialect)


def test_functions_of_ones_own_may_be_named() -> None:
    assert not read_statement("SELECT our_tax(total) FROM o").allowed
    statement = read_statement("SELECT our_tax(total) FROM o", functions=("OUR_TAX",))
    assert render(statement, "postgres", functions=("our_tax",)) == "SELECT OUR_TAX(total) FROM o"


# Addresses ----------------------------------------------------------------------------------------------

ALLOWED = ("api.example", "plain.example:8080", "127.0.0.1:81")
LEADS = {
    "api.example": ["93.184.216.34"],
    "meta.example": ["169.254.169.254"],
}
INSIDE = {
    "loopback.example": "127.0.0.1",
    "loopback-high.example": "127.255.255.254",
    "metadata.example": "169.254.169.254",
    "azure.example": "168.63.129.16",
    "alibaba.example": "100.100.100.200",
    "private10.example": "10.1.2.3",
    "private172.example": "172.16.0.1",
    "private192.example": "192.168.1.1",
    "zero.example": "0.0.0.0",
    "broadcast.example": "255.255.255.255",
    "multicast.example": "224.0.0.1",
    "benchmark.example": "198.18.0.1",
    "loopback6.example": "::1",
    "any6.example": "::",
    "link6.example": "fe80::1",
    "site6.example": "fec0::1",
    "unique6.example": "fd00:ec2::254",
    "multicast6.example": "ff02::1",
    "mapped.example": "::ffff:127.0.0.1",
    "mapped-hex.example": "::ffff:a9fe:a9fe",
    "compatible.example": "::7f00:1",
    "translated.example": "::ffff:0:127.0.0.1",
    "nat64.example": "64:ff9b::7f00:1",
    "nat64-local.example": "64:ff9b:1::7f00:1",
    "six-to-four.example": "2002:7f00:1::",
    "teredo.example": "2001:0:7f00:1::",
    "isatap.example": "2606:4700::5efe:7f00:1",
    "documentation6.example": "2001:db8::1",
}


async def resolve(host: str, port: int) -> list[str]:
    return LEADS.get(host) or ([INSIDE[host]] if host in INSIDE else [])


FORGED = (
    *(f"http://{name}/" for name in INSIDE),
    # Names that are not on the list, and spellings of loopback that other readers take for an address.
    "http://evil.example/",
    "http://api.example.evil.example/",
    "http://127.0.0.1/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0177.0.0.1/",
    "http://017700000001/",
    "http://0/",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[0:0:0:0:0:ffff:7f00:1]/",
    "http://[::ffff:a9fe:a9fe]/latest/meta-data/",
    "http://[fe80::1%25eth0]/",
    "http://localhost/",
    "http://localhost.localdomain/",
    "http://169.254.169.254/latest/meta-data/",
    "http://metadata.google.internal/",
    "http://127.0.0.1.nip.io/",
    "http://\uff11\uff12\uff17.0.0.1/",
    "http://127%2e0%2e0%2e1/",
    # Credentials, ports, schemes, and what parsers disagree on.
    "http://user:pw@api.example/",
    "http://api.example@127.0.0.1/",
    "http://127.0.0.1:81@api.example/",
    "http://api.example:22/",
    "http://api.example:99999/",
    "http://api.example\\@127.0.0.1/",
    "http://api.example#@127.0.0.1:81\\/",
    "http://api.example\t.evil.example/",
    "http://api.example\r\nHost: evil.example/",
    "http:///127.0.0.1/",
    "http:127.0.0.1",
    "//127.0.0.1/",
    "ftp://api.example/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "unix:/var/run/docker.sock",
)


@pytest.mark.parametrize("url", FORGED)
async def test_a_forged_url_is_an_error_that_the_agent_reads_and_a_record(world: World, url: str) -> None:
    settings = ApiToolSettings(allowed_hosts=(*ALLOWED, *INSIDE))
    world.settings = Settings(agents=(AgentSettings(type="executor", tools=("api_caller",)),))
    reached: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        reached.append(request)
        return httpx.Response(200, text="inside")

    tool = ApiCaller(settings, resolve=resolve, transport=httpx.MockTransport(answer))
    models = ReplayModels(*script("api_caller", url=url))
    [record] = await called(world, models, factories={"api_caller": lambda _: tool})
    [read] = models.read
    assert read.startswith("Error: ")
    assert not reached
    assert (record.decision, record.details["code"], record.reason) == ("deny", "tool_refused", read)


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1/",
        "http://127.0.0.1:6379/",
        "//127.0.0.1/",
        "http://2130706433/",
        "http://[::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://metadata.example/latest/meta-data/",
        "http://loopback.example/",
        "http://user:pw@api.example/",
        "http://evil.example/",
        "file:///etc/passwd",
        "gopher://api.example/",
    ],
)
async def test_a_redirect_into_the_house_is_refused_at_its_second_step(world: World, location: str) -> None:
    world.settings = Settings(agents=(AgentSettings(type="executor", tools=("api_caller",)),))
    reached: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        reached.append(str(request.url))
        return httpx.Response(302, headers={"Location": location}, stream=httpx.ByteStream(b""))

    settings = ApiToolSettings(allowed_hosts=("api.example", "metadata.example", "loopback.example"))
    tool = ApiCaller(settings, resolve=resolve, transport=httpx.MockTransport(answer))
    models = ReplayModels(*script("api_caller", url="http://api.example/start"))
    [record] = await called(world, models, factories={"api_caller": lambda _: tool})
    assert reached == ["http://93.184.216.34/start"]
    assert models.read[0].startswith("Error: ")
    assert (record.decision, record.details["code"]) == ("deny", "tool_refused")


@pytest.mark.parametrize("address", INSIDE.values())
def test_addresses_inside_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::1111", "2606:4700::5efe:808:808", "1.1.1.1"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


async def test_a_name_that_changes_between_two_steps_is_looked_at_each_time() -> None:
    answers = [["93.184.216.34"], ["127.0.0.1"]]

    async def turning(host: str, port: int) -> list[str]:
        return answers.pop(0)

    allowed = Allowlist(["api.example"], turning)
    assert (await allowed.check("http://api.example/")).address == "93.184.216.34"
    with pytest.raises(Exception, match="not a public address"):
        await allowed.check("http://api.example/")


async def test_arguments_are_on_record_and_secrets_in_them_are_not(world: World) -> None:
    world.settings = Settings(agents=(AgentSettings(type="executor", tools=("api_caller",)),))
    url = "http://evil.example/?api_key=sk-proj-4f9ac0d1e2b34455aa&page=2"
    [record] = await called(world, ReplayModels(*script("api_caller", url=url)))
    arguments = str(record.details["arguments"])
    assert "evil.example" in arguments
    assert "page=2" in arguments
    assert "sk-proj" not in record.to_bytes().decode()
