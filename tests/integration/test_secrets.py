"""Secrets in texts, headers, tool arguments, errors and tracebacks: nothing that is written about a request has one."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterator
from typing import Final

import orjson
import pytest

from handlers.producer import AsyncProducer
from tasks import keys, logs
from tasks.access.redact import Redactor
from tasks.agents.types import AgentAnswer, AgentTask, ToolCall
from tasks.audit.read import read
from tasks.contracts.result import IntentInfo, Step
from tasks.errors import ModelRefused
from tasks.log import LOGGER, get_logger
from tasks.runtime import Worker
from tasks.settings import Settings
from tasks.stores.connect import Stores
from tests.support import corpus

POOLS: Final = (keys.INTENT_POOL, keys.agent_pool("responder"), keys.agent_pool("human_escalation"))
log = get_logger()


class Leaky:
    """An agent that spreads the request's text wherever it can, and refuses every second one with it."""

    async def run(self, task: AgentTask) -> AgentAnswer:
        said = task.text
        arguments = {"url": f"https://example.org/?q={said}", "headers": {"X-Note": said}, "list": [{"deep": said}]}
        assert task.on_tool
        task.on_tool(ToolCall("api_caller", arguments, ok=False, error=f"refused: {said}", milliseconds=1.0))
        try:
            raise ValueError(f"cannot use {said}")  # noqa: TRY301  the traceback is wanted
        except ValueError as error:
            log.exception("leaked", note=said, deep={"notes": [said]})
            logging.getLogger("somebody.else").warning("and they say %s", said)
            if int(task.request_id.rpartition("-")[2]) % 2:
                raise ModelRefused(f"upstream said: {said} is wrong") from error
        steps = (
            Step(name="api_caller", detail=orjson.dumps(arguments).decode()),
            Step(name="x", detail=said, ok=False),
        )
        return AgentAnswer(output="done", model="m", steps=steps)

    async def close(self) -> None:
        return


async def classify(text: str) -> IntentInfo:
    log.debug("classified", text=text)
    return IntentInfo(label="answer_question", confidence=0.9, model_version="m1")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Everything that this process logs, as its formatter writes it."""
    root, ours = logging.getLogger(), logging.getLogger(LOGGER)
    before = root.handlers[:], root.level, ours.level
    yield io.StringIO()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


async def test_no_secret_is_in_what_is_written_about_a_request(
    settings: Settings, stores: Stores, tenant: str, lines: io.StringIO
) -> None:
    logs.configure("DEBUG", Redactor.of(settings.auditing))
    [handler] = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(lines)
    texts = [one for one in corpus.secrets(each=9) if isinstance(one.holder, str)]
    chosen = list({one.secret: one for one in texts}.values())
    assert len(chosen) > 300
    requests = [{"id": f"r-{number}", "text": one.holder} for number, one in enumerate(chosen)]
    async with AsyncProducer(settings, tenant=tenant) as producer:
        ids = await producer.submit_many(requests)
        queued = [{**message, "body": None} for message in await stores.broker.peek("requests", limit=1000)]
        stopping = asyncio.Event()
        async with Worker(settings, POOLS, classify=classify, runner=Leaky()) as worker:
            running = asyncio.create_task(worker.run(stopping))
            results = [result async for result in producer.results(ids, 120)]
            stopping.set()
            await running
    assert {result.status.value for result in results} == {"succeeded", "escalated"}
    assert len(queued) == len(chosen)
    written = {
        "log": lines.getvalue(),
        "audit": "\n".join(
            record.to_bytes().decode() for record in await read(stores.audit) if record.tenant == tenant
        ),
        "results": "\n".join(result.to_bytes().decode() for result in results),
        "queue headers": orjson.dumps(queued).decode(),
    }
    for place, text in written.items():
        assert len(text) > 10_000, place
        found = [one.shape for one in chosen if any(part in text for part in corpus.lines_of(one.secret))]
        assert found == [], place
