"""The tool port: a name, a description, typed arguments, a typed result, and what repeating a call would do."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from tasks.errors import ToolError

A = TypeVar("A", bound="ToolArguments")

MAX_RESULT_CHARACTERS: Final = 8 * 1024
"""What of a result an agent gets to read."""


class Effect(Enum):
    """What a call does to the world, and so whether it may be repeated.

    ``READ`` changes nothing. ``IDEMPOTENT`` changes something, and twice is as good as once. ``ONCE`` must not be
    repeated: its beginning is durable in the journal before it is made.
    """

    READ = "read"
    IDEMPOTENT = "idempotent"
    ONCE = "once"


async def _no_attachments(name: str) -> bytes:
    raise ToolError(f"there is no attachment {name!r}")


@dataclass(frozen=True, slots=True)
class ToolContext:
    """For whom a call is made. ``idempotency_key`` is for receivers; it is empty for a call that only reads.

    ``attachment`` returns the bytes of one of the request's ``attachments``, which are keys of objects.
    """

    tenant: str = ""
    request_id: str = ""
    idempotency_key: str = ""
    attachments: tuple[str, ...] = ()
    attachment: Callable[[str], Awaitable[bytes]] = _no_attachments


class ToolArguments(BaseModel):
    """What a model has to give to call a tool. An unknown argument is an error that the model can read."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ToolResult(BaseModel):
    """What a tool returns. Fields that hold their default are left out of what the agent reads."""

    model_config = ConfigDict(frozen=True)

    def spelt(self) -> str:
        """Return what the agent reads, in full."""
        return json.dumps(self.model_dump(mode="json", exclude_defaults=True), ensure_ascii=False)


class Said(ToolResult):
    """A result that is text already."""

    text: str

    def spelt(self) -> str:
        """Return the text."""
        return self.text


class Tool(ABC, Generic[A]):
    """One thing that an agent can do. Stateless between calls, safe to call concurrently.

    ``effect`` holds for every call, unless :meth:`effect_of` says otherwise. Who declares nothing is called once.
    """

    name: str
    """At most 64 letters, digits, ``_`` and ``-``: model endpoints take no other."""
    description: str
    """What the tool does, in the words that the model reads."""
    arguments: type[A]
    effect: Effect = Effect.ONCE

    @abstractmethod
    async def call(self, arguments: A, context: ToolContext) -> ToolResult:
        """Do it.

        Raises:
            ToolUncertain: it may have been done, or not.
            ToolFailed: what it called answered that it failed.
            ToolError: it could not be done, and nothing was. The agent reads the message.
        """

    def effect_of(self, arguments: A) -> Effect:
        """Return what a call with these arguments does."""
        return self.effect

    async def prepare(self) -> None:
        """Find out what the description needs. Asked before each request; must be cheap once it is known."""

    @cached_property
    def schema(self) -> dict[str, Any]:
        """Name, description and JSON schema of the arguments, as chat completion APIs want them.

        Built once: pydantic takes longer to build one than an agent takes for a whole turn.
        """
        parameters = _without_titles(self.arguments.model_json_schema())
        parameters.setdefault("properties", {})
        return {"name": self.name, "description": self.description, "parameters": parameters}


def _without_titles(schema: dict[str, Any]) -> dict[str, Any]:
    """Drop pydantic's titles: they repeat the names and cost tokens on every request."""
    kept = {key: value for key, value in schema.items() if key not in {"title", "description"}}
    properties = kept.get("properties", {})
    kept["properties"] = {
        name: {key: value for key, value in field.items() if key != "title"} for name, field in properties.items()
    }
    return kept


def readable(result: ToolResult) -> str:
    """Return ``result`` as the text that the agent reads, cut at :data:`MAX_RESULT_CHARACTERS`."""
    text = result.spelt()
    if len(text) <= MAX_RESULT_CHARACTERS:
        return text
    return text[:MAX_RESULT_CHARACTERS] + " … (cut)"
