"""Session state between turns: an AutoGen assistant's saved messages, kept from growing without end."""

from __future__ import annotations

from typing import Any, Final

from tasks.errors import InvalidInput

MAX_MESSAGES: Final = 20
MAX_CHARACTERS: Final = 64 * 1024

Message = dict[str, Any]


def messages_of(state: dict[str, Any]) -> list[Message]:
    """Return the messages in ``state``.

    Raises:
        InvalidInput: it is not the saved state of an assistant.
    """
    context = state.get("llm_context")
    messages = context.get("messages") if isinstance(context, dict) else None
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise InvalidInput("session_state: is not the saved state of an agent (no llm_context.messages)")
    return messages


def with_turn(state: dict[str, Any] | None, asked: str, answered: str, *, source: str) -> dict[str, Any]:
    """Return the session's state after a turn that no assistant took part in.

    Raises:
        InvalidInput: ``state`` is not the saved state of an assistant.
    """
    before = state or {"type": "AssistantAgentState", "version": "1.0.0", "llm_context": {"messages": []}}
    turn = [
        {"type": "UserMessage", "content": asked, "source": "user"},
        {"type": "AssistantMessage", "content": answered, "thought": None, "source": source},
    ]
    messages = [*messages_of(before), *turn]
    return bounded(before | {"llm_context": before["llm_context"] | {"messages": messages}})


def bounded(state: dict[str, Any]) -> dict[str, Any]:
    """Return ``state`` with its newest messages: at most 20 of them, and 64 Ki characters.

    What is kept begins with a user's message, so that no tool result stands without its call. Where the last
    turn alone is larger, its question and its answer are kept.
    """
    messages = messages_of(state)
    kept = _from_first_user(_newest(messages))
    if not kept:
        kept = _question_and_answer(messages)
    return state | {"llm_context": state["llm_context"] | {"messages": kept}}


def _newest(messages: list[Message]) -> list[Message]:
    size = 0
    for index in range(len(messages) - 1, -1, -1):
        size += len(str(messages[index].get("content", "")))
        if size > MAX_CHARACTERS or len(messages) - index > MAX_MESSAGES:
            return messages[index + 1 :]
    return messages


def _from_first_user(messages: list[Message]) -> list[Message]:
    starts = (index for index, message in enumerate(messages) if message.get("type") == "UserMessage")
    first = next(starts, None)
    return [] if first is None else messages[first:]


def _question_and_answer(messages: list[Message]) -> list[Message]:
    users = [message for message in messages if message.get("type") == "UserMessage"]
    if not users:
        return []
    last = messages[-1]
    answered = last.get("type") == "AssistantMessage" and isinstance(last.get("content"), str)
    # Each is cut to half of the bound.
    half = MAX_CHARACTERS // 2
    pair = [users[-1], last] if answered else [users[-1]]
    return [message | {"content": str(message["content"])[:half]} for message in pair]
