"""Tool calls for models that have none of their own: the choice is a JSON object held to a schema.

Made for a model of 135 million parameters: one short prompt, few fields, and no trust in what comes back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tasks.agents.models.digest import tell_result
from tasks.agents.models.fit import ChatMessage, shorten
from tasks.agents.models.propose import Proposal

NO_TOOL: Final = "none"
CHOICE_TOKENS: Final = 96
"""What a choice may be long: the name and a short argument."""
_ASKED_TOKENS: Final = 200
_DESCRIPTION: Final = 240
_ANSWER_NOW: Final = "Answer the request with these results, in one or two sentences."


def choosable(tools: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the tools that are left to a model's choice: not those that take a URL.

    Where the text holds a URL, it was proposed already; any other would be the model's invention.
    """
    return [tool for tool in tools if "url" not in tool.get("parameters", {}).get("required", ())]


def choice_messages(asked: str, tools: Sequence[Mapping[str, Any]]) -> list[ChatMessage]:
    """Return the prompt that asks which of ``tools`` the request ``asked`` needs."""
    lines = [f"- {tool['name']}: {tool.get('description', '')[:_DESCRIPTION]}" for tool in tools]
    told = "\n".join(["Choose the tool that the request needs. Answer in JSON.", *lines, f"- {NO_TOOL}: no tool fits"])
    return [{"role": "system", "content": told}, {"role": "user", "content": shorten(asked, _ASKED_TOKENS)}]


def choice_format(tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the ``response_format`` of a choice: ``{"tool": …, "arguments": {…}}``, one for each tool."""
    options = [_option(tool["name"], _needed(tool.get("parameters", {}))) for tool in tools]
    nothing = _option(NO_TOOL, {"type": "object", "properties": {}, "additionalProperties": False})
    schema = {"anyOf": [*options, nothing]}
    return {"type": "json_schema", "json_schema": {"name": "choice", "schema": schema, "strict": True}}


def read_choice(text: str, tools: Sequence[Mapping[str, Any]]) -> Proposal | None:
    """Return the call that ``text`` chose; ``None`` for no tool and for what is not a proper choice."""
    try:
        choice = json.loads(text)
    except ValueError:
        return None
    if not isinstance(choice, dict) or not isinstance(choice.get("arguments"), dict):
        return None
    for tool in tools:
        if tool["name"] == choice.get("tool") and _complete(choice["arguments"], tool.get("parameters", {})):
            return tool["name"], choice["arguments"]
    return None


def as_text(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Return ``messages`` without tool calls: results become part of what the user says.

    Results are retold in short lines, which a small model reads better and faster than JSON.
    """
    told: list[ChatMessage] = []
    for message in messages:
        if message["role"] == "tool":
            _say(told, "Result of " + tell_result(message["name"], message["content"]))
        elif message["role"] == "user":
            _say(told, message["content"])
        elif message.get("content"):
            told.append({"role": message["role"], "content": message["content"]})
    if messages and messages[-1]["role"] == "tool":
        _say(told, _ANSWER_NOW)
    return told


def results_first(messages: Sequence[ChatMessage], answer: str) -> str:
    """Return ``answer`` behind the newest tool results, word for word; alone where the last message is none.

    A model that is too small for tool calls is also too small to copy three rows of numbers without a mistake.
    """
    results: list[str] = []
    for message in reversed(messages):
        if message["role"] != "tool":
            break
        results.insert(0, tell_result(message["name"], message["content"]))
    return "\n\n".join([*results, answer]) if results else answer


def whole_sentences(text: str) -> str:
    """Return ``text`` up to its last whole sentence, where it was cut off behind at least one."""
    end = max(text.rfind(mark) for mark in (". ", ".\n", "! ", "!\n", "? ", "?\n"))
    return text[: end + 1] if end > 0 else text


def _say(told: list[ChatMessage], text: str) -> None:
    """Add to the user's last message: chat templates want user and assistant to take turns."""
    if told and told[-1]["role"] == "user":
        told[-1] = {"role": "user", "content": f"{told[-1]['content']}\n\n{text}"}
    else:
        told.append({"role": "user", "content": text})


def _option(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"tool": {"const": name}, "arguments": arguments},
        "required": ["tool", "arguments"],
        "additionalProperties": False,
    }


def _needed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema with the required arguments only: others have defaults, and each costs tokens."""
    required = list(parameters.get("required", ()))
    properties = parameters.get("properties", {})
    kept = {name: _small(properties[name]) for name in required or properties}
    return {"type": "object", "properties": kept, "required": required, "additionalProperties": False}


def _small(schema: Mapping[str, Any]) -> dict[str, Any]:
    # A grammar for thousands of repetitions is slow to build, and the choice is short anyhow.
    return {
        key: value for key, value in schema.items() if key not in {"description", "maxLength", "minLength", "default"}
    }


def _complete(arguments: Mapping[str, Any], parameters: Mapping[str, Any]) -> bool:
    """Tell whether no required argument is missing; a small model leaves empty what it has nothing for."""
    for name in parameters.get("required", ()):
        text = parameters.get("properties", {}).get(name, {}).get("type") == "string"
        value = arguments.get(name)
        if value is None or value == "" or (text and not isinstance(value, str)):
            return False
    return True
