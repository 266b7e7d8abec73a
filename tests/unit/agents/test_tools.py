"""The tool port, the bench and the wall around the API caller. No sockets."""

from __future__ import annotations

import asyncio
from functools import cached_property

import pytest
from autogen_core import CancellationToken

from tasks.access.outbound import Allowlist, is_public
from tasks.agents.tools.api_caller import ApiArguments, ApiCaller
from tasks.agents.tools.base import MAX_RESULT_CHARACTERS, Tool, ToolArguments, ToolContext, ToolResult, readable
from tasks.agents.tools.bench import Bench
from tasks.agents.tools.calls import Calls
from tasks.agents.tools.registry import ToolRegistry
from tasks.agents.types import ToolCall
from tasks.errors import SettingsError, ToolError
from tasks.settings import AgentSettings, ApiToolSettings, ToolSettings


class EchoArguments(ToolArguments):
    text: str


class EchoResult(ToolResult):
    text: str = ""


class Echo(Tool[EchoArguments]):
    name = "echo"
    arguments = EchoArguments

    @cached_property
    def description(self) -> str:
        return "Says it again."

    async def call(self, arguments: EchoArguments, context: ToolContext) -> EchoResult:
        if arguments.text == "fail":
            raise ToolError("cannot say that")
        if arguments.text == "bug":
            raise RuntimeError("secret detail")
        if arguments.text == "hang":
            await asyncio.sleep(60)
        return EchoResult(text=arguments.text)


@pytest.mark.parametrize(
    ("arguments", "ok", "text"),
    [
        ({"text": "hi"}, True, '{"text": "hi"}'),
        ({"text": "fail"}, False, "Error: cannot say that"),
        ({"text": "bug"}, False, "Error: the tool echo failed unexpectedly"),
        ({"words": "hi"}, False, "Error: text: Field required; words: Extra inputs are not permitted"),
        ([1], False, "Error: body: Input should be a valid dictionary or instance of EchoArguments"),
    ],
)
async def test_each_call_is_reported_once_and_never_raises(arguments: object, ok: bool, text: str) -> None:
    calls: list[ToolCall] = []
    bench = Bench([Echo()], Calls(budget=3, on_call=calls.append))

    result = await bench.call_tool("echo", arguments)  # type: ignore[arg-type]

    assert (result.to_text(), result.is_error) == (text, not ok)
    assert [(call.name, call.ok, call.error) for call in calls] == [("echo", ok, "" if ok else text)]


async def test_the_budget_ends() -> None:
    bench = Bench([Echo()], Calls(budget=1, on_call=lambda _: None))

    assert not (await bench.call_tool("echo", {"text": "a"})).is_error
    assert "no tool calls are left" in (await bench.call_tool("echo", {"text": "b"})).to_text()


async def test_a_cancelled_call_is_on_record() -> None:
    calls: list[ToolCall] = []
    bench, token = Bench([Echo()], Calls(budget=1, on_call=calls.append)), CancellationToken()
    work = asyncio.ensure_future(bench.call_tool("echo", {"text": "hang"}, token))
    await asyncio.sleep(0.01)

    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work

    assert [call.ok for call in calls] == [False]


def test_schemas_are_built_once_and_bear_no_titles() -> None:
    echo = Echo()

    assert echo.schema is echo.schema
    assert "title" not in str(echo.schema)


def test_a_long_result_is_cut() -> None:
    assert len(readable(EchoResult(text="x" * 20_000))) < MAX_RESULT_CHARACTERS + 20


def test_an_unknown_tool_names_the_agent_and_the_known_ones() -> None:
    with pytest.raises(
        SettingsError, match=r"agents\.planner\.tools.*'magic'.*api_caller, read_attachment, sql_parser"
    ):
        ToolRegistry(ToolSettings()).check(AgentSettings(type="planner", tools=("magic",)))


async def _resolve(host: str, port: int) -> list[str]:
    return {
        "good.example": ["93.184.216.34"],
        "mixed.example": ["93.184.216.34", "10.0.0.1"],
        "local.example": ["127.0.0.1"],
        "meta.example": ["169.254.169.254"],
        "mapped.example": ["::ffff:127.0.0.1"],
        "localhost": ["127.0.0.1"],
    }.get(host, [])


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://good.example/", "only http"),
        ("file:///etc/passwd", "only http"),
        ("http://user:pw@good.example/", "user name"),
        ("http://good.example:8080/", "good.example:8080 is not an allowed host"),
        ("http://other.example/", "not an allowed host"),
        ("http://good.example.evil.com/", "not an allowed host"),
        ("http://good.example\\@evil.com/", "not a URL"),
        ("http://good.example /", "not a URL"),
        ("http://good.example\r\nX: y/", "not a URL"),
        ("http://mixed.example/", "10.0.0.1, which is not a public address"),
        ("http://local.example/", "127.0.0.1, which is not"),
        ("http://meta.example/", "169.254.169.254, which is not"),
        ("http://mapped.example/", "which is not a public address"),
        ("http://gone.example/", "does not resolve"),
        ("http://2130706433/", "not an allowed host"),
        ("http://127.0.0.1:81/", "not an allowed host"),
        ("http://[::1]/", "not an allowed host"),
        ("http:///x", "names no host"),
        ("http://good.example:99999/", "port"),
    ],
)
async def test_what_must_not_be_called_is_not(url: str, problem: str) -> None:
    names = ("good", "mixed", "local", "meta", "mapped", "gone")
    allowed = Allowlist([*(f"{name}.example" for name in names), "127.0.0.1:80"], _resolve)

    with pytest.raises(ToolError, match=problem):
        await allowed.check(url)


async def test_the_call_goes_to_the_checked_address() -> None:
    allowed = Allowlist(["good.example", "localhost:8080", "[::1]:9"], _resolve)

    target = await allowed.check("https://GOOD.example./a//b?c=1#d")
    assert target.pinned_url == "https://93.184.216.34:443/a//b?c=1"
    assert (target.host, target.authority) == ("good.example", "GOOD.example.")
    assert (await allowed.check("http://localhost:8080")).pinned_url == "http://127.0.0.1:8080/"
    assert (await allowed.check("http://[::1]:9/x")).pinned_url == "http://[::1]:9/x"


@pytest.mark.parametrize("entry", ["http://a.example", "a.example/x", "", "a:b"])
def test_a_bad_entry_is_a_settings_error(entry: str) -> None:
    with pytest.raises(SettingsError, match="allowed_hosts"):
        Allowlist([entry])


def test_public_addresses() -> None:
    import ipaddress

    hidden = ["64:ff9b::7f00:1", "2002:7f00:1::", "::ffff:10.0.0.1", "0.0.0.0", "224.0.0.1", "100.64.0.1", "fe80::1"]
    assert not any(is_public(ipaddress.ip_address(text)) for text in hidden)
    assert is_public(ipaddress.ip_address("2606:4700::1111"))


async def test_methods_and_bodies_are_checked_first() -> None:
    tool = ApiCaller(ApiToolSettings(allowed_hosts=("good.example",)), resolve=_resolve)

    with pytest.raises(ToolError, match="method POST is not allowed; allowed: GET, HEAD"):
        await tool.call(ApiArguments(url="http://good.example/", method="POST"), ToolContext())
    with pytest.raises(ToolError, match="has no body"):
        await tool.call(ApiArguments(url="http://good.example/", body={"a": 1}), ToolContext())
