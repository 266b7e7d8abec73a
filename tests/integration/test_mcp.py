"""Tools of real MCP servers, through AutoGen's workbench and everything that stands around a call here."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.agents.team import TeamRunner
from tasks.agents.tools.registry import ToolRegistry
from tasks.agents.types import AgentTask, ToolCall
from tasks.errors import CallInDoubt, Denied, SettingsError
from tasks.settings import AgentSettings, McpServerSettings, Settings, ToolSettings
from tasks.settings_load import parse
from tasks.stores.journal import JournalStore
from tasks.stores.objects import MemoryObjectStore
from tests.support.replay import Line, ReplayModels, wants

SERVER = Path(__file__).parents[1] / "support" / "mcp_tools.py"
NAMES = ("add", "environment", "note", "fail", "hang", "crash")
READING = ["add", "environment", "fail"]


class Lab:
    """A runner with one server, asked again and again."""

    def __init__(self, **server: Any) -> None:
        settings = parse(McpServerSettings, {"read_only": READING, "connect_seconds": 20, **server})
        self.settings = Settings(tools=ToolSettings(mcp={"tools": settings}))
        self.journal = JournalStore(MemoryObjectStore())
        self.calls: list[ToolCall] = []
        self.read: list[str] = []
        self._tools = ToolRegistry(self.settings.tools, environ={"TOKEN": "s3cret-t0ken"})

    async def ask(self, *script: Line, permit: Any = None, request: str = "r1", names: tuple[str, ...] = NAMES) -> None:
        models = ReplayModels(*script, "done", "done")
        agent = AgentSettings(type="executor", tools=tuple(f"tools__{name}" for name in names))
        task = AgentTask(
            agent=agent,
            text="?",
            request_id=request,
            tenant="acme",
            on_tool=self.calls.append,
            permit=permit,
            journal=self.journal,
        )
        try:
            await TeamRunner(self.settings, models=models, tools=self._tools).run(task)  # type: ignore[arg-type]
        finally:
            self.read = models.read

    async def close(self) -> None:
        await self._tools.close()


@pytest.fixture
async def labs() -> AsyncIterator[list[Lab]]:
    made: list[Lab] = []
    yield made
    for lab in made:
        await lab.close()


def stdio(labs: list[Lab], mode: str = "stdio", **server: Any) -> Lab:
    labs.append(Lab(command=[sys.executable, str(SERVER), mode], **server))
    return labs[-1]


async def test_a_server_on_standard_streams_is_asked_with_its_own_schema(labs: list[Lab]) -> None:
    lab = stdio(labs, env={"SECRET": "${TOKEN}"})
    await lab.ask(wants("tools__add", a=2, b=40))
    assert lab.read == ["42"]
    tool = lab._tools._made["tools__add"]
    assert tool.schema["description"] == "Add two numbers."
    assert set(tool.schema["parameters"]["properties"]) == {"a", "b"}
    assert [(call.name, call.ok) for call in lab.calls] == [("tools__add", True)]
    # Secrets reach the server and not the model; the rest of this process's environment reaches neither.
    await lab.ask(wants("tools__environment", name="SECRET"))
    assert lab.read == ["[redacted]"]
    await lab.ask(wants("tools__environment", name="PYTEST_CURRENT_TEST"))
    assert lab.read == ["not set"]


@pytest.fixture
def http_url() -> Iterator[str]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    server = subprocess.Popen([sys.executable, SERVER, "http", str(port)])
    for _ in range(400):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/mcp"
    server.kill()
    server.wait(20)


@pytest.mark.filterwarnings("ignore:Use `streamable_http_client`:DeprecationWarning")  # AutoGen's call of mcp 1.x
async def test_a_server_on_http_is_asked(labs: list[Lab], http_url: str) -> None:
    labs.append(Lab(url=http_url, headers={"Authorization": "Bearer ${TOKEN}"}))
    await labs[0].ask(wants("tools__add", a=1, b=1))
    assert labs[0].read == ["2"]


async def test_policy_and_budget_stand_around_each_call(labs: list[Lab]) -> None:
    lab, asked = stdio(labs), []

    async def permit(name: str) -> None:
        asked.append(name)
        raise Denied("no")

    await lab.ask(wants("tools__add", a=1, b=1), permit=permit)
    assert asked == ["tools__add"]
    assert "may not use the tool tools__add" in lab.read[0]
    assert lab.calls[0].code == "tool_refused"


async def test_a_call_that_may_not_be_repeated_is_journalled(labs: list[Lab], tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    lab = stdio(labs, env={"NOTES": str(notes)})
    for _ in range(3):
        await lab.ask(wants("tools__note", text="hello"))
        assert lab.read == ["noted"]
    assert notes.read_text() == "hello\n"
    assert [call.replayed for call in lab.calls] == [False, True, True]


async def test_what_a_server_says_of_a_failure_is_read_by_the_agent(labs: list[Lab]) -> None:
    lab = stdio(labs)
    await lab.ask(wants("tools__fail", why="no paper"))
    assert "no paper" in lab.read[0]
    assert lab.calls[0].code == "tool_failed"
    await lab.ask(wants("tools__add", a="many", b=1))
    assert lab.read[0].startswith("Error: ")


async def test_a_slow_server_is_not_waited_for_and_the_next_call_is_served(labs: list[Lab]) -> None:
    lab = stdio(labs, timeout_seconds=0.5)
    await lab.ask(wants("tools__hang"))
    assert "gave no answer within 0.5 s" in lab.read[0]
    assert lab.calls[0].code == "tool_uncertain"
    await lab.ask(wants("tools__add", a=1, b=2), request="r2")
    assert lab.read == ["3"]


async def test_a_server_that_crashes_costs_its_call_and_is_started_again(labs: list[Lab]) -> None:
    lab = stdio(labs, timeout_seconds=5)
    await lab.ask(wants("tools__crash"))
    assert lab.calls[0].code == "tool_uncertain"
    await lab.ask(wants("tools__add", a=1, b=2), request="r2")
    assert lab.read == ["3"]
    with pytest.raises(CallInDoubt):
        await lab.ask(wants("tools__crash"))


@pytest.mark.parametrize(
    ("server", "problem"),
    [
        ({"command": ["/no/such/program"]}, "cannot be reached"),
        ({"command": [sys.executable, "-c", "print('hello')"], "connect_seconds": 3}, "cannot be reached"),
        (
            {"command": [sys.executable, str(SERVER), "mute"], "connect_seconds": 1},
            "cannot be reached: no answer in time",
        ),
        ({"url": "http://127.0.0.1:9/mcp", "connect_seconds": 3}, "cannot be reached"),
    ],
)
async def test_a_server_that_is_away_costs_its_tools_and_is_left_alone_for_a_while(
    labs: list[Lab], server: dict[str, Any], problem: str
) -> None:
    labs.append(Lab(**server))
    await labs[0].ask(wants("tools__add", a=1, b=2))
    assert problem in labs[0].read[0]
    assert labs[0].calls[0].code == "tool_unavailable"
    started = time.monotonic()
    await labs[0].ask(wants("tools__add", a=1, b=2))
    assert time.monotonic() - started < 1


async def test_a_tool_that_the_server_does_not_have_names_those_that_it_has(labs: list[Lab]) -> None:
    with pytest.raises(
        SettingsError, match="tools__nope: MCP server tools has no tool 'nope'; it has add, environment"
    ):
        await stdio(labs).ask("hello", names=("nope",))


@pytest.mark.parametrize(
    ("server", "problem"),
    [
        ({}, "either command or url"),
        ({"command": ["x"], "url": "http://127.0.0.1/"}, "either command or url"),
        ({"command": ["x"], "env": {"A": "${NOT_SET}"}}, "tools.mcp.tools.env.A: .*NOT_SET is not set"),
    ],
)
def test_wrong_settings_are_an_error_at_start(server: dict[str, Any], problem: str) -> None:
    agent = AgentSettings(type="executor", tools=("tools__add",))
    with pytest.raises(SettingsError, match=problem):
        ToolRegistry(parse(ToolSettings, {"mcp": {"tools": server}}), environ={}).check(agent)


def test_a_tool_of_a_server_that_is_not_configured_is_unknown() -> None:
    with pytest.raises(SettingsError, match="there is no tool 'other__add'"):
        ToolRegistry(Settings().tools).check(AgentSettings(type="executor", tools=("other__add",)))
