"""The extractive responder and the model registry."""

from __future__ import annotations

import json

import pytest
from autogen_core.models import FunctionExecutionResult, FunctionExecutionResultMessage, UserMessage
from pydantic import BaseModel

from tasks.agents.models.digest import telling
from tasks.agents.models.extractive import LABEL, ExtractiveClient
from tasks.agents.models.registry import ModelRegistry
from tasks.errors import ModelRefused
from tasks.settings import AgentSettings, ModelSettings, Settings

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


async def test_endpoints_are_shared_and_an_override_wins() -> None:
    registry = ModelRegistry(Settings(embedded_model_url="http://127.0.0.1:5"), environ={})
    agent = AgentSettings(type="planner", model="extractive", max_tokens=2000)

    one, label = registry.client(agent, "embedded")
    two, _ = registry.client(agent, "embedded")

    assert label == "smollm2-135m-instruct (embedded)"
    assert one is not two
    assert one._endpoint is two._endpoint
    assert one._max_tokens == 64
    await registry.close()
    await registry.close()
