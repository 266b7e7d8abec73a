"""The extractive responder and the model registry."""

from __future__ import annotations

import asyncio
import json

import pytest
from autogen_core.models import (
    CreateResult,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    RequestUsage,
    UserMessage,
)
from pydantic import BaseModel

from tasks.agents.models.digest import telling
from tasks.agents.models.extractive import LABEL, ExtractiveClient
from tasks.agents.models.patient import PatientClient
from tasks.agents.models.registry import ModelRegistry
from tasks.errors import ModelError, ModelRefused
from tasks.settings import ModelSettings, Settings

TEXT = (
    "The harbour opened in 1904. Lunch was fine. The harbour serves ferries and container ships. "
    "Ships enter the harbour by day. Nobody knows why."
)


def test_telling_sentences_keep_their_order() -> None:
    assert telling(TEXT) == (
        "The harbour opened in 1904. The harbour serves ferries and container ships. Ships enter the harbour by day."
    )
    assert telling("Version 1.5 is out.") == "Version 1.5 is out."
    assert telling("") == ""


class Scripted(ExtractiveClient):
    """A model that takes its time, or fails."""

    def __init__(self, *, seconds: float = 0, error: Exception | None = None) -> None:
        super().__init__()
        self._seconds, self._error = seconds, error

    async def create(self, messages: object, **_: object) -> CreateResult:
        await asyncio.sleep(self._seconds)
        if self._error:
            raise self._error
        return CreateResult(finish_reason="stop", content="a model's words", usage=RequestUsage(1, 2), cached=False)


async def test_a_model_that_answers_in_time_is_named() -> None:
    client = PatientClient(Scripted(), label="small", seconds=5)
    assert (await client.create([UserMessage(content=TEXT, source="user")])).content == "a model's words"
    assert client.label == "small"


@pytest.mark.parametrize("model", [Scripted(seconds=60), Scripted(error=ModelError("down"))])
async def test_a_busy_model_is_not_waited_for_and_the_answer_says_who_gave_it(model: Scripted) -> None:
    client = PatientClient(model, label="small", seconds=0.01)
    answer = await client.create([UserMessage(content=TEXT, source="user")])
    assert str(answer.content).startswith(LABEL)
    assert client.label == "extractive (no language model, embedded busy)"


async def test_a_model_that_refuses_is_an_error() -> None:
    client = PatientClient(Scripted(error=ModelRefused("key")), label="small", seconds=5)
    with pytest.raises(ModelRefused):
        await client.create([UserMessage(content=TEXT, source="user")])


async def test_every_extractive_answer_says_so_and_is_the_same_twice() -> None:
    model = ExtractiveClient()
    message = UserMessage(content=TEXT, source="user")

    first, second = await model.create([message]), await model.create([message])

    assert first.content == second.content
    assert str(first.content).startswith(LABEL)


async def test_extractive_retells_results_and_failures() -> None:
    rows = json.dumps({"column_names": ["city", "n"], "rows": [["Oslo", 3]], "truncated": True})
    results = [
        FunctionExecutionResult(content=rows, name="db", call_id="1", is_error=False),
        FunctionExecutionResult(content="Error: no", name="web", call_id="2", is_error=True),
    ]

    answer = await ExtractiveClient().create([FunctionExecutionResultMessage(content=results)])

    assert answer.content == LABEL + "db: 1 or more rows\ncity | n\nOslo | 3\n…\nweb failed: no"


async def test_extractive_refuses_schemas() -> None:
    with pytest.raises(ModelRefused):
        await ExtractiveClient().create([UserMessage(content="x", source="u")], json_output=BaseModel)


def test_names_lead_where_they_should() -> None:
    entry = ModelSettings(base_url="http://127.0.0.1:1/v1", model="big")
    plain = ModelRegistry(Settings(models={"mine": entry, "none": ModelSettings(provider="extractive")}))
    local = ModelRegistry(Settings(embedded_model_url="http://127.0.0.1:5"))

    assert plain.resolve("mine").label == "big"
    assert plain.resolve("none").label == "extractive (no language model)"
    assert plain.resolve(None).label == "extractive (no language model)"
    assert local.resolve("extractive").label == "extractive (no language model)"
    assert local.resolve("embedded").label == "smollm2-135m-instruct (embedded)"
    assert local.resolve("embedded").settings.base_url == "http://127.0.0.1:5/v1"
    assert local.resolve("gpt-4-1106-preview").settings.base_url == "https://api.openai.com/v1"


async def test_connections_are_shared_and_clients_are_not() -> None:
    registry = ModelRegistry(Settings(embedded_model_url="http://127.0.0.1:5"), environ={})

    async with (
        registry.using("embedded", temperature=0, max_tokens=2000) as (one, label),
        registry.using(None, temperature=0) as (two, _),
    ):
        assert label == "smollm2-135m-instruct (embedded)"
        assert one is not two
        assert one._model._endpoint is two._model._endpoint
        assert one._model._max_tokens == 64
    await registry.close()
    await registry.close()
