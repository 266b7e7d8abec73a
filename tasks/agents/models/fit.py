"""Cuts a conversation to what a model can read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

ChatMessage = dict[str, Any]
"""A message of the chat completions protocol: ``role``, ``content``, perhaps ``tool_calls``."""

_OVERHEAD: Final = 8
_MARK: Final = " … "
_DENSE: Final = re.compile(r"[^A-Za-z\s]")


def estimate(text: str) -> int:
    """Return about how many tokens ``text`` is, rather too many: tokenisers differ, an overflow is an error.

    Letters count a third of a token, digits and signs a whole one, other scripts two thirds of a token a
    byte.
    """
    ascii_text = text if text.isascii() else text.encode("ascii", "ignore").decode()
    dense = len(_DENSE.findall(ascii_text))
    foreign = 0 if ascii_text is text else len(text.encode()) - len(ascii_text)
    return (len(ascii_text) - dense + 2) // 3 + dense + (foreign * 2 + 2) // 3


def size(message: ChatMessage) -> int:
    """Return about how many tokens ``message`` is, its tool calls included."""
    calls = message.get("tool_calls") or ()
    called = sum(estimate(call["function"]["name"] + call["function"]["arguments"]) + _OVERHEAD for call in calls)
    return estimate(message.get("content") or "") + called + _OVERHEAD


def shorten(text: str, budget: int) -> str:
    """Return ``text`` in at most ``budget`` estimated tokens: its start and its end, without the middle."""
    if estimate(text) <= budget:
        return text
    length = len(text)
    while length > 8:
        # Proportional steps converge in a few rounds, whatever the script.
        length = min(length - 1, int(length * max(budget, 1) / max(estimate(text[:length]), 1)))
        head = length * 2 // 3
        cut = text[:head] + _MARK + text[len(text) - (length - head) :]
        if estimate(cut) <= budget:
            return cut
    return text[: max(budget // 3, 0)]  # no character counts for more than three


def fit(messages: Sequence[ChatMessage], budget: int) -> list[ChatMessage]:
    """Return ``messages`` within ``budget`` tokens: system messages and newest turn, then older ones.

    A tool's result is never kept without the call before it. Where system and newest turn alone are too long,
    their texts are shortened.
    """
    if sum(map(size, messages)) <= budget:
        return list(messages)
    system = [message for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    start = _newest_turn(rest)
    needed, older = system + rest[start:], rest[:start]
    left = budget - sum(map(size, needed))
    if left < 0:
        return _squeeze(needed, budget)
    kept = len(older)
    while kept and size(older[kept - 1]) <= left:
        kept -= 1
        left -= size(older[kept])
    while kept < len(older) and older[kept]["role"] != "user":
        kept += 1
    return system + older[kept:] + rest[start:]


def _newest_turn(messages: Sequence[ChatMessage]) -> int:
    for index in range(len(messages) - 1, -1, -1):
        if messages[index]["role"] == "user":
            return index
    return 0


def _squeeze(messages: Sequence[ChatMessage], budget: int) -> list[ChatMessage]:
    """Give each text its share: the short ones whole, the long ones what that leaves, evenly."""
    fixed = sum(size(message) - estimate(message.get("content") or "") for message in messages)
    texts = sorted(estimate(message.get("content") or "") for message in messages)
    left, share = max(budget - fixed, 0), 0
    for index, tokens in enumerate(texts):
        share = left // (len(texts) - index)
        if tokens > share:
            break
        left -= tokens
    return [
        message | {"content": shorten(message["content"], share)} if message.get("content") else dict(message)
        for message in messages
    ]
