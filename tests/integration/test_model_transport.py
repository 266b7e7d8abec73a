"""Connections to a model's endpoint: reused, replaced where the server closed them, many at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from benchmarks.model_server import Connection, Server
from tasks.agents.models.endpoint import Endpoint
from tasks.agents.models.transport import Pool, open_transport
from tasks.agents.models.upstream import Upstream
from tasks.errors import ModelError
from tasks.settings import BreakerSettings, ModelSettings
from tests.support.model_api import ModelApi, model_api

ANSWER = {"choices": [{"message": {"content": "Yes."}, "finish_reason": "stop"}], "usage": {"total_tokens": 5}}


@pytest.fixture
def api() -> Iterator[ModelApi]:
    with model_api() as api:
        yield api


def endpoint(url: str, **changes: Any) -> Endpoint:
    settings = ModelSettings(base_url=url, **changes)

    async def soon(_seconds: float) -> None:
        await asyncio.sleep(0)

    return Endpoint(settings, "m", environ={}, upstream=Upstream("model 'm'", settings, sleep=soon))


async def ask(made: Endpoint) -> str:
    answer = await made.post({"model": "m", "messages": []})
    return str(answer["choices"][0]["message"]["content"])


async def test_one_after_the_other_share_a_connection(api: ModelApi) -> None:
    api.reply(ANSWER)
    made = endpoint(f"{api.url}/v1")
    assert [await ask(made) for _ in range(5)] == ["Yes."] * 5
    await made.close()
    assert len(api.connections) == 1
    assert api.sent[0].path == "/v1/chat/completions"
    assert api.sent[0].headers["host"] == api.url.removeprefix("http://")


async def test_a_refusal_leaves_the_connection_usable(api: ModelApi) -> None:
    api.reply({"error": {"message": "slow down"}}, 429)
    api.reply(ANSWER)
    made = endpoint(api.url)
    assert await ask(made) == "Yes."
    await made.close()
    assert len(api.connections) == 1


async def test_without_keep_alive_each_has_its_own(api: ModelApi) -> None:
    api.reply(ANSWER)
    made = endpoint(api.url, keep_alive_seconds=0)
    assert [await ask(made) for _ in range(3)] == ["Yes."] * 3
    await made.close()
    assert len(api.connections) == 3


async def test_a_connection_that_the_server_closed_is_not_used_again(api: ModelApi) -> None:
    api.reply(ANSWER, Connection="close")
    made = endpoint(api.url)
    assert [await ask(made) for _ in range(3)] == ["Yes."] * 3
    await made.close()
    assert len(api.connections) == 3


async def test_a_connection_that_was_idle_for_too_long_is_closed(api: ModelApi) -> None:
    api.reply(ANSWER)
    made = endpoint(api.url, keep_alive_seconds=0.05)
    await ask(made)
    await asyncio.sleep(0.1)
    await ask(made)
    await made.close()
    assert len(api.connections) == 2


async def test_a_cancelled_request_gives_no_connection_back() -> None:
    server, url, listening = await slow(0.2)
    made = endpoint(url)
    first = asyncio.ensure_future(ask(made))
    await asyncio.sleep(0.05)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await asyncio.sleep(0.05)
    assert server.now == 0
    assert (await ask(made)).startswith("This is")
    assert server.connections == 2
    await made.close()
    listening.close()


async def test_a_server_that_is_away_is_an_error_of_the_model() -> None:
    made = endpoint("http://127.0.0.1:1/v1", breaker=BreakerSettings(failures=99))
    with pytest.raises(ModelError, match="ConnectError, after 4 tries"):
        await ask(made)
    with pytest.raises(ModelError, match="ConnectError"):
        await made.warm()
    await made.close()


async def test_a_silent_server_is_not_waited_for() -> None:
    _, url, listening = await slow(30)
    made = endpoint(url, timeout_seconds=0.1)
    with pytest.raises(ModelError, match="ReadTimeout"):
        await ask(made)
    await made.close()
    listening.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_hundreds_wait_at_once_and_the_connections_serve_again(stream: bool) -> None:
    server, url, listening = await slow(1.0)
    made = endpoint(url, stream=stream, timeout_seconds=30)
    begun = time.process_time()

    for _ in range(2):
        answers = await asyncio.gather(*(ask(made) for _ in range(300)))
        assert {answer.strip() for answer in answers} == {
            "This is what a language model would have said if there had been one here"
        }

    assert server.connections == server.peak
    # httpx's own pool takes 40 ms a request here.
    assert (time.process_time() - begun) / 600 < 0.02
    await made.close()
    listening.close()


async def slow(seconds: float) -> tuple[Server, str, asyncio.Server]:
    """Return a server of this loop that takes ``seconds`` for each answer, and its address."""
    server = Server(seconds)
    listening = await asyncio.get_running_loop().create_server(lambda: Connection(server), "127.0.0.1", 0, backlog=1024)
    return server, f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1", listening


def test_a_proxy_is_obeyed_except_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example.com:3128")
    monkeypatch.setenv("http_proxy", "http://proxy.example.com:3128")
    monkeypatch.setenv("no_proxy", "inside.example.com")
    assert isinstance(open_transport("https://api.example.com/v1", keep_alive_seconds=30), httpx.AsyncHTTPTransport)
    assert isinstance(open_transport("https://inside.example.com/v1", keep_alive_seconds=30), Pool)
    assert isinstance(open_transport("http://127.0.0.1:5/v1", keep_alive_seconds=30), Pool)
