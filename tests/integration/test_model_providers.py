"""Anthropic and Azure through AutoGen's extensions, against small servers that speak their protocols."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tasks.agents.models.registry import ModelRegistry
from tasks.agents.team import TeamRunner
from tasks.agents.types import AgentTask
from tasks.errors import ModelRefused, ModelUnavailable, NotReady
from tasks.settings import AgentSettings, BreakerSettings, ModelSettings, Settings
from tests.support.model_api import ModelApi, model_api

pytest.importorskip("autogen_ext.models.anthropic", reason="the extras anthropic and azure are not installed")
pytest.importorskip("autogen_ext.models.openai", reason="the extras anthropic and azure are not installed")
pytestmark = pytest.mark.filterwarnings("default")  # of the SDKs

ENVIRON = {"ANTHROPIC_API_KEY": "sk-secret", "AZURE_OPENAI_API_KEY": "sk-secret"}
SQL = {"sql": "SELECT count(*) AS n FROM customers", "mode": "run"}


@pytest.fixture
def api() -> Iterator[ModelApi]:
    with model_api() as api:
        yield api


def settings(api: ModelApi, provider: str, **changes: Any) -> Settings:
    model = ModelSettings(provider=provider, base_url=api.url, model="m-1", **changes)  # type: ignore[arg-type]
    return Settings(default_model="house", models={"house": model})


def anthropic(*content: dict[str, Any], stop: str = "end_turn") -> dict[str, Any]:
    usage = {"input_tokens": 11, "output_tokens": 5}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m-1", "stop_sequence": None}
    return message | {"content": list(content), "stop_reason": stop, "usage": usage}


def azure(message: dict[str, Any], finish: str = "stop") -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    usage = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m-1", "choices": [choice], "usage": usage}


EXECUTOR = AgentSettings(type="executor", tools=("sql_parser",), temperature=0.3, max_tokens=77)


async def test_anthropic_answers_with_a_tool_call(api: ModelApi) -> None:
    api.reply(anthropic({"type": "tool_use", "id": "t1", "name": "sql_parser", "input": SQL}, stop="tool_use"))
    api.reply(anthropic({"type": "text", "text": "There are some."}))
    runner = TeamRunner(settings(api, "anthropic"), environ=ENVIRON)

    answer = await runner.run(AgentTask(agent=EXECUTOR, text="How many customers?"))
    await runner.close()

    assert (answer.output, answer.model) == ("There are some.", "m-1")
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.tool_calls) == (22, 10, 1)
    assert [step.ok for step in answer.steps] == [True]
    assert api.sent[0].path == "/v1/messages"
    assert api.sent[0].headers["x-api-key"] == "sk-secret"
    assert {name: api.sent[0].body[name] for name in ("model", "temperature", "max_tokens")} == {
        "model": "m-1",
        "temperature": 0.3,
        "max_tokens": 77,
    }
    assert api.sent[1].body["messages"][-1]["content"][0]["type"] == "tool_result"
    assert len(api.connections) == 1


async def test_azure_answers_with_a_tool_call(api: ModelApi) -> None:
    call = {"id": "t1", "type": "function", "function": {"name": "sql_parser", "arguments": '{"sql": "SELECT 1"}'}}
    api.reply(azure({"content": None, "tool_calls": [call]}, finish="tool_calls"))
    api.reply(azure({"content": "One."}))
    runner = TeamRunner(settings(api, "azure"), environ=ENVIRON)

    answer = await runner.run(AgentTask(agent=EXECUTOR, text="Count."))
    await runner.close()

    assert (answer.output, answer.usage.input_tokens, answer.usage.tool_calls) == ("One.", 22, 1)
    assert api.sent[0].path == "/openai/deployments/m-1/chat/completions?api-version=2024-10-21"
    assert api.sent[0].headers["api-key"] == "sk-secret"
    assert api.sent[0].body["max_tokens"] == 77
    assert api.sent[1].body["messages"][-1]["role"] == "tool"


async def test_azure_learns_what_a_model_does_not_know(api: ModelApi) -> None:
    words = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    api.reply({"error": {"message": words}}, 400)
    api.reply(azure({"content": "Yes."}))
    runner = TeamRunner(settings(api, "azure"), environ=ENVIRON)
    await runner.run(AgentTask(agent=EXECUTOR, text="Count."))
    await runner.close()
    assert "max_tokens" not in api.sent[1].body
    assert api.sent[1].body["max_completion_tokens"] == 77


@pytest.mark.parametrize("provider", ["anthropic", "azure"])
async def test_a_wrong_key_is_a_refusal_that_names_the_variable(api: ModelApi, provider: str) -> None:
    api.reply({"error": {"message": "sk-secret is wrong"}}, 401)
    runner = TeamRunner(settings(api, provider), environ=ENVIRON)

    with pytest.raises(ModelRefused, match=r"_API_KEY was not accepted") as caught:
        await runner.run(AgentTask(agent=EXECUTOR, text="x"))
    await runner.close()

    assert "sk-secret" not in str(caught.value)
    assert len(api.sent) == 1


@pytest.mark.parametrize("provider", ["anthropic", "azure"])
async def test_tries_and_breaker_are_ours(api: ModelApi, provider: str) -> None:
    api.reply({"error": {"message": "overloaded"}}, 529, **{"Retry-After": "0.01"})
    made = settings(api, provider, breaker=BreakerSettings(failures=2, open_seconds=60))
    runner = TeamRunner(made, environ=ENVIRON)

    with pytest.raises(ModelUnavailable, match="failed 2 times in a row"):
        await runner.run(AgentTask(agent=EXECUTOR, text="x"))
    await runner.close()

    assert len(api.sent) == 2


async def test_without_a_key_nothing_is_sent() -> None:
    registry = ModelRegistry(Settings(models={"claude": ModelSettings(provider="anthropic")}), environ={})
    with pytest.raises(ModelRefused, match="ANTHROPIC_API_KEY"):
        async with registry.using("claude", temperature=0):
            pass


async def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anthropic", None)
    registry = ModelRegistry(Settings(models={"claude": ModelSettings(provider="anthropic")}), environ=ENVIRON)
    with pytest.raises(NotReady, match=r"sluice\[anthropic\]"):
        async with registry.using("claude", temperature=0):
            pass
