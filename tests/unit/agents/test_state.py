"""Bounded session state."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.agents.state import MAX_CHARACTERS, MAX_MESSAGES, bounded, messages_of
from tasks.errors import InvalidInput


def _state(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"type": "AssistantAgentState", "version": "1.0.0", "llm_context": {"messages": list(messages)}}


def _user(text: str) -> dict[str, Any]:
    return {"type": "UserMessage", "content": text, "source": "user"}


def _answer(content: Any) -> dict[str, Any]:
    return {"type": "AssistantMessage", "content": content, "source": "a", "thought": None}


def test_a_short_state_is_kept_whole() -> None:
    state = _state(_user("a"), _answer("b"))

    assert bounded(state) == state


def test_only_the_newest_turns_are_kept_and_they_begin_with_a_question() -> None:
    turns = [message for i in range(40) for message in (_user(f"q{i}"), _answer(f"a{i}"))]

    kept = messages_of(bounded(_state(*turns)))

    assert len(kept) == MAX_MESSAGES
    assert kept[0]["type"] == "UserMessage"
    assert kept[-1]["content"] == "a39"


def test_a_long_last_turn_leaves_question_and_answer() -> None:
    calls = [
        _answer([{"id": "1", "name": "t", "arguments": "{}"}]),
        {"type": "FunctionExecutionResultMessage", "content": []},
    ]

    kept = messages_of(bounded(_state(_user("q"), *calls * 15, _answer("a"))))

    assert [message["content"] for message in kept] == ["q", "a"]


def test_large_messages_do_not_pile_up() -> None:
    turns = [message for _ in range(5) for message in (_user("q" * 30_000), _answer("a" * 30_000))]

    kept = messages_of(bounded(_state(*turns)))

    assert sum(len(message["content"]) for message in kept) <= MAX_CHARACTERS
    assert kept[0]["type"] == "UserMessage"


@pytest.mark.parametrize("state", [{"x": 1}, {"llm_context": {}}, {"llm_context": {"messages": [1]}}])
def test_what_is_no_state_is_invalid(state: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="session_state"):
        bounded(state)
