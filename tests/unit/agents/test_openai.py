"""The chat completions client against a scripted transport."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from autogen_core import FunctionCall
from autogen_core.models import (
    AssistantMessage,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    SystemMessage,
    UserMessage,
)
from autogen_core.tools import ToolSchema

from tasks.agents.models.endpoint import Endpoint
from tasks.agents.models.openai import OpenAIClient
from tasks.agents.models.transport import is_loopback
from tasks.agents.models.upstream import TRIES, Upstream
from tasks.errors import ModelError, ModelRefused
from tasks.settings import ModelSettings

KEY = "sk-very-secret"
USER = UserMessage(content="How many customers?", source="user")
TOOLS = [
    ToolSchema(
        name="db",
        description="Runs SQL.",
        parameters={"type": "object", "properties": {"sql": {"type": "string"}}, "required": ["sql"]},
    )
]
Handler = Callable[[httpx.Request], httpx.Response]


class Script:
    """Answers with its items in turn and keeps the requests and the waits."""

    def __init__(self, *replies: httpx.Response | Exception) -> None:
        self.replies = list(replies)
        self.sent: list[dict[str, Any]] = []
        self.headers: list[httpx.Headers] = []
        self.waits: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(json.loads(request.content))
        self.headers.append(request.headers)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


def client(script: Script, *, environ: dict[str, str] | None = None, **changes: Any) -> OpenAIClient:
    settings = ModelSettings(**{"base_url": "https://api.example.com/v1", **changes})
    endpoint = Endpoint(
        settings,
        "m1",
        environ={"OPENAI_API_KEY": KEY} if environ is None else environ,
        transport=httpx.MockTransport(script),
        upstream=Upstream("model 'm1'", settings, sleep=script.sleep, jitter=lambda: 0.5),
    )
    return OpenAIClient(endpoint, settings, temperature=0.1, max_tokens=50)


def text(content: str, finish: str = "stop", **message: Any) -> httpx.Response:
    choice = {"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return httpx.Response(200, json={"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})


def refused(status: int, message: str = "no", **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"message": message}}, headers=headers)


async def test_a_text_answer_with_usage() -> None:
    script = Script(text("Twelve."))

    result = await client(script).create([SystemMessage(content="Be brief."), USER])

    assert (result.content, result.finish_reason) == ("Twelve.", "stop")
    assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (7, 3)
    assert script.sent[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (script.sent[0]["model"], script.sent[0]["max_tokens"]) == ("m1", 50)
    assert script.headers[0]["Authorization"] == f"Bearer {KEY}"


async def test_native_tool_calls_and_their_results_travel() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "db", "arguments": '{"sql": "SELECT 1"}'}}
    script = Script(text("", "tool_calls", tool_calls=[call]), text("One."))
    model = client(script)

    first = await model.create([USER], tools=TOOLS)
    assert first.content == [FunctionCall(id="c1", name="db", arguments='{"sql": "SELECT 1"}')]
    assert first.finish_reason == "function_calls"
    result = FunctionExecutionResult(content="[[1]]", name="db", call_id="c1", is_error=False)
    history = [
        USER,
        AssistantMessage(content=first.content, source="a"),
        FunctionExecutionResultMessage(content=[result]),
    ]
    await model.create(history)

    assert script.sent[0]["tools"][0]["function"]["name"] == "db"
    assert [message["role"] for message in script.sent[1]["messages"]] == ["user", "assistant", "tool"]
    assert "tools" not in script.sent[1]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_refusals_are_not_tried_again_and_name_the_key_not_its_value(status: int) -> None:
    script = Script(refused(status, f"wrong: {KEY}"))

    with pytest.raises(ModelRefused) as caught:
        await client(script).create([USER])

    assert KEY not in str(caught.value)
    assert ("OPENAI_API_KEY" in str(caught.value)) == (status in {401, 403})
    assert script.waits == []


async def test_a_missing_key_is_refused_before_anything_is_sent() -> None:
    script = Script()

    with pytest.raises(ModelRefused, match="set the environment variable OPENAI_API_KEY"):
        await client(script, environ={}).create([USER])

    assert script.sent == []


async def test_a_loopback_endpoint_needs_no_key() -> None:
    script = Script(text("ok"))

    await client(script, environ={}, base_url="http://127.0.0.1:9/v1").create([USER])

    assert "Authorization" not in script.headers[0]


async def test_busy_endpoints_are_tried_again_after_what_they_ask_for() -> None:
    script = Script(refused(429, **{"Retry-After": "3"}), httpx.ConnectError("x"), refused(503), text("ok"))

    assert (await client(script).create([USER])).content == "ok"
    # What it asks for, and half a second at most so that not all come back at once.
    assert script.waits[0] == 3.25
    assert script.waits[-2:] == [1.0, 2.0]


async def test_it_gives_up_after_a_few_tries() -> None:
    script = Script(*[httpx.ReadTimeout("x")] * TRIES)

    with pytest.raises(ModelError, match="ReadTimeout, after 4 tries") as caught:
        await client(script).create([USER])

    assert not isinstance(caught.value, ModelRefused)


async def test_a_long_wait_is_not_waited_for() -> None:
    script = Script(refused(429, **{"Retry-After": "3600"}))

    with pytest.raises(ModelError, match="after 1 try"):
        await client(script).create([USER])


async def test_an_unsupported_parameter_is_learnt() -> None:
    script = Script(
        refused(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."), text("a"), text("b")
    )
    model = client(script)
    await model.create([USER])
    await model.create([USER])

    assert [("max_tokens" in sent, sent.get("max_completion_tokens")) for sent in script.sent] == [
        (True, None),
        (False, 50),
        (False, 50),
    ]


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (text(""), ModelError),
        (text("", "length"), ModelError),
        (text("x", "content_filter"), ModelRefused),
        (httpx.Response(200, text="<html>"), ModelError),
        (httpx.Response(200, json={"choices": []}), ModelError),
        (httpx.Response(302, headers={"Location": "http://evil"}), ModelRefused),
    ],
)
async def test_what_is_no_answer_is_an_error(reply: httpx.Response, error: type[Exception]) -> None:
    with pytest.raises(error):
        await client(Script(reply)).create([USER])


def stream(*events: dict[str, Any], done: bool = True) -> httpx.Response:
    lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    return httpx.Response(200, text=lines + "data: [DONE]\n\n" * done)


async def test_a_streamed_answer_is_put_together() -> None:
    reply = stream(
        {"choices": [{"delta": {"content": "Twe"}}]},
        {"choices": [{"delta": {"content": "lve."}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}},
    )
    script = Script(reply)

    result = await client(script, stream=True).create([USER])

    assert (result.content, result.finish_reason, result.usage.prompt_tokens) == ("Twelve.", "stop", 5)
    assert (script.sent[0]["stream"], script.sent[0]["stream_options"]) == (True, {"include_usage": True})


async def test_streamed_tool_calls_are_put_together() -> None:
    parts = [
        {"index": 0, "id": "c1", "function": {"name": "db", "arguments": '{"sql":'}},
        {"index": 0, "function": {"arguments": ' "SELECT 1"}'}},
    ]
    script = Script(stream(*({"choices": [{"delta": {"tool_calls": [part]}}]} for part in parts)))

    result = await client(script, stream=True).create([USER], tools=TOOLS)

    assert result.content == [FunctionCall(id="c1", name="db", arguments='{"sql": "SELECT 1"}')]


async def test_a_stream_that_breaks_off_or_fails_is_tried_again() -> None:
    half = {"choices": [{"delta": {"content": "Twe"}}]}
    script = Script(stream(half, done=False), stream(half, {"error": {"message": "no"}}), stream(half))

    assert (await client(script, stream=True).create([USER])).content == "Twe"
    assert len(script.sent) == 3


async def test_emulated_choice_becomes_a_call() -> None:
    choice = {"tool": "db", "arguments": {"sql": "SELECT count(*) FROM customers"}}
    script = Script(text(json.dumps(choice)))

    result = await client(script, native_tools=False).create([USER], tools=TOOLS)

    assert isinstance(result.content, list)
    assert json.loads(result.content[0].arguments) == choice["arguments"]
    assert script.sent[0]["response_format"]["json_schema"]["schema"]["anyOf"]


@pytest.mark.parametrize(
    "choice",
    [
        "{",
        "[]",
        '{"tool": "none", "arguments": {}}',
        '{"tool": "db", "arguments": {"sql": ""}}',
        '{"tool": "db", "arguments": {"sql": [1]}}',
        '{"tool": "x", "arguments": {}}',
    ],
)
async def test_anything_but_a_proper_choice_is_no_call(choice: str) -> None:
    script = Script(text(choice), text("An answer."))

    result = await client(script, native_tools=False).create([USER], tools=TOOLS)

    assert result.content == "An answer."
    assert result.usage.prompt_tokens == 14
    assert "tools" not in script.sent[1]


async def test_a_literal_statement_costs_no_model_call() -> None:
    script = Script()
    asked = UserMessage(content="Run SELECT 1;", source="user")

    result = await client(script, native_tools=False).create([asked], tools=TOOLS)

    assert isinstance(result.content, list)
    assert json.loads(result.content[0].arguments) == {"sql": "SELECT 1"}
    assert script.sent == []


async def test_emulated_results_stand_before_the_models_words() -> None:
    script = Script(text("There is one. And then it was c", "length"))
    call = FunctionCall(id="c", name="db", arguments="{}")
    result = FunctionExecutionResult(
        content=json.dumps({"column_names": ["n"], "rows": [[1]]}), name="db", call_id="c", is_error=False
    )
    history = [USER, AssistantMessage(content=[call], source="a"), FunctionExecutionResultMessage(content=[result])]

    answer = await client(script, native_tools=False).create(history, tools=TOOLS)

    assert answer.content == "db: 1 row\nn\n1\n\nThere is one."
    assert [message["role"] for message in script.sent[0]["messages"]] == ["user"]


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:1/v1", True),
        ("http://localhost", True),
        ("http://[::1]/", True),
        ("https://127.0.0.1.example.com", False),
    ],
)
def test_loopback(url: str, local: bool) -> None:
    assert is_loopback(url) is local
