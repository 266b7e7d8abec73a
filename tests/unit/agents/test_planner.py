"""The planner on model clients: it asks for JSON of a schema, and writes from what the steps found."""

import json
from typing import Any

import httpx
import pytest

from tasks.agents.models.registry import ModelRegistry
from tasks.agents.planner import COMPOSED, TeamPlanner
from tasks.agents.state import messages_of
from tasks.agents.team import TeamRunner
from tasks.agents.types import AgentTask, Spent
from tasks.contracts.result import Usage
from tasks.errors import LimitExceeded, ModelError, ModelRefused
from tasks.settings import AgentSettings, ModelSettings, Settings

AGENT = AgentSettings(type="planner", model="m", instructions="Split it.")
PLAN = '{"steps": []}'


class Endpoint:
    """Answers each call with ``text`` and keeps what it was asked."""

    def __init__(self, text: str = PLAN, *, status: int = 200) -> None:
        self.text = text
        self.status = status
        self.asked: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(json.loads(request.content))
        if self.status != 200:
            return httpx.Response(self.status, json={"error": {"message": "no"}})
        choice = {"finish_reason": "stop", "message": {"role": "assistant", "content": self.text}}
        return httpx.Response(200, json={"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})


def planner(endpoint: Endpoint, **model: Any) -> TeamPlanner:
    entry = ModelSettings(base_url="http://model.example/v1", api_key_env="", **model)
    settings = Settings(models={"m": entry}, default_model="extractive")
    models = ModelRegistry(settings, environ={"OPENAI_API_KEY": "k"}, transport=httpx.MockTransport(endpoint))
    return TeamPlanner(models, TeamRunner(settings, models=models))


def task(**fields: Any) -> AgentTask:
    return AgentTask(**{"agent": AGENT, "text": "Do it all", **fields})


async def test_a_draft_is_json_of_a_schema() -> None:
    endpoint = Endpoint()
    answer = await planner(endpoint).draft(task())
    assert answer is not None
    assert (answer.output, answer.model, answer.usage) == (PLAN, "m", Usage(input_tokens=7, output_tokens=3))
    [asked] = endpoint.asked
    assert asked["response_format"]["type"] == "json_schema"
    assert "steps" in asked["response_format"]["json_schema"]["schema"]["properties"]
    assert [message["content"] for message in asked["messages"]] == ["Split it.", "Do it all"]


async def test_a_draft_knows_what_was_said_in_the_session() -> None:
    endpoint = Endpoint()
    made = planner(endpoint)
    first = await made.conclude(task(text="First"), "what was found", "composed")
    await made.draft(task(text="And now?", session_state=first.session_state))
    said = [message["content"] for message in endpoint.asked[-1]["messages"]]
    assert said == ["Split it.", "First", PLAN, "And now?"]


@pytest.mark.parametrize("name", ["extractive", "embedded"])
async def test_a_model_that_cannot_plan_is_not_asked(name: str) -> None:
    endpoint = Endpoint()
    agent = AGENT.changed(model=name)
    assert await planner(endpoint).draft(task(agent=agent)) is None
    answer = await planner(endpoint).conclude(task(agent=agent), "found", "composed")
    assert (answer.output, answer.model, endpoint.asked) == ("composed", COMPOSED, [])


async def test_a_model_may_be_told_not_to_plan() -> None:
    assert await planner(Endpoint(), plans=False).draft(task()) is None


async def test_the_answer_is_written_from_what_was_found() -> None:
    endpoint = Endpoint("The answer.")
    answer = await planner(endpoint).conclude(task(), "what was found", "composed")
    assert (answer.output, answer.usage) == ("The answer.", Usage(input_tokens=7, output_tokens=3))
    asked = endpoint.asked[0]["messages"]
    assert asked[0]["content"].startswith("Split it.\n\nAgents have carried out the steps")
    assert asked[1]["content"] == "what was found"


@pytest.mark.parametrize("model", ["m", "extractive"])
async def test_the_session_remembers_what_the_user_said_not_what_was_found(model: str) -> None:
    made = planner(Endpoint("The answer."))
    agent = AGENT.changed(model=model)
    first = await made.conclude(task(agent=agent), "what was found", "The answer.")
    second = await made.conclude(task(agent=agent, text="More", session_state=first.session_state), "f", "The answer.")
    assert second.session_state is not None
    said = [message["content"] for message in messages_of(second.session_state)]
    assert said == ["Do it all", "The answer.", "More", "The answer."]


async def test_a_turn_without_a_model_is_followed_by_one_with_it() -> None:
    endpoint = Endpoint("The answer.")
    made = planner(endpoint)
    first = await made.conclude(task(agent=AGENT.changed(model="extractive")), "f", "By rule.")
    await made.conclude(task(text="More", session_state=first.session_state), "found", "c")
    said = [message["content"] for message in endpoint.asked[0]["messages"]]
    assert said[1:] == ["Do it all", "By rule.", "found"]


async def test_asking_for_a_plan_counts_against_the_agents_limits() -> None:
    endpoint = Endpoint()
    made = planner(endpoint)
    first = await made.draft(task(agent=AGENT.changed(max_turns=1, max_total_tokens=10)))
    assert first is not None
    assert first.turns == 1
    spent = Spent().plus(first)
    with pytest.raises(LimitExceeded, match="agent planner exceeds max_turns=1: no answer after 1 calls of a model"):
        await made.draft(task(agent=AGENT.changed(max_turns=1), spent=spent))
    with pytest.raises(LimitExceeded, match="max_total_tokens=10: 10 of 10 tokens are used"):
        await made.draft(task(agent=AGENT.changed(max_total_tokens=10), spent=spent))
    assert len(endpoint.asked) == 1


async def test_what_the_plan_took_counts_against_an_answer_without_one() -> None:
    endpoint = Endpoint("The answer.")
    settings = Settings(models={"m": ModelSettings(base_url="http://model.example/v1")}, default_model="extractive")
    models = ModelRegistry(settings, environ={"OPENAI_API_KEY": "k"}, transport=httpx.MockTransport(endpoint))
    runner, spent = TeamRunner(settings, models=models), Spent(1, Usage(input_tokens=7, output_tokens=3))
    answer = await runner.run(task(agent=AGENT.changed(max_turns=2), spent=spent))
    assert (answer.turns, answer.usage) == (1, Usage(input_tokens=7, output_tokens=3))
    with pytest.raises(LimitExceeded, match="max_turns=1"):
        await runner.run(task(agent=AGENT.changed(max_turns=1), spent=spent))


async def test_a_refusal_is_one() -> None:
    with pytest.raises(ModelRefused):
        await planner(Endpoint(status=401)).draft(task())


async def test_a_plan_that_takes_too_long_is_none() -> None:
    async def slow(_request: httpx.Request) -> httpx.Response:
        import asyncio

        await asyncio.sleep(5)
        raise AssertionError

    with pytest.raises(ModelError, match=r"no plan within 0\.05 s"):
        await planner(slow).draft(task(agent=AGENT.changed(deadline_seconds=0.05)))  # type: ignore[arg-type]
