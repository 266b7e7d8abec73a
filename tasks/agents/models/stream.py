"""Puts the events of a streamed chat completion together again."""

from __future__ import annotations

from typing import Any

Payload = dict[str, Any]


class Whole:
    """Takes the events of one stream; :meth:`answer` is what the same answer would be in one piece."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._thought: list[str] = []
        self._calls: dict[int, dict[str, str]] = {}
        self._finish = ""
        self._usage: Payload | None = None
        self.ended = False
        """Whether the answer is whole."""

    def add(self, event: Payload) -> None:
        """Take one event."""
        self._usage = event.get("usage") or self._usage
        choices = event.get("choices") or [{}]
        delta = choices[0].get("delta") or {}
        self._finish = choices[0].get("finish_reason") or self._finish
        self.ended = self.ended or bool(self._finish)
        self._thought.append(delta.get("reasoning_content") or "")
        self._text.append(delta.get("content") or "")
        for piece in delta.get("tool_calls") or ():
            call = self._calls.setdefault(piece.get("index", 0), {"id": "", "name": "", "arguments": ""})
            function = piece.get("function") or {}
            call["id"] = piece.get("id") or call["id"]
            call["name"] += function.get("name") or ""
            call["arguments"] += function.get("arguments") or ""

    def answer(self) -> Payload:
        """Return the whole answer."""
        calls = [
            {"id": call["id"], "function": {"name": call["name"], "arguments": call["arguments"]}}
            for _, call in sorted(self._calls.items())
        ]
        message = {
            "content": "".join(self._text),
            "tool_calls": calls,
            "reasoning_content": "".join(self._thought) or None,
        }
        return {"choices": [{"message": message, "finish_reason": self._finish}], "usage": self._usage}
