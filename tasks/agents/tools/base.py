"""The tool port: a name, a description, typed arguments, a typed result."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any, ClassVar, Final, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

A = TypeVar("A", bound="ToolArguments")

MAX_RESULT_CHARACTERS: Final = 8 * 1024
"""What of a result an agent gets to read."""


class ToolArguments(BaseModel):
    """What a model has to give to call a tool. An unknown argument is an error that the model can read."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ToolResult(BaseModel):
    """What a tool returns. Fields that hold their default are left out of what the agent reads."""

    model_config = ConfigDict(frozen=True)


class Tool(ABC, Generic[A]):
    """One thing that an agent can do. Stateless between calls, safe to call concurrently."""

    name: ClassVar[str]
    arguments: type[A]

    @cached_property
    @abstractmethod
    def description(self) -> str:
        """What the tool does, in the words that the model reads."""

    @abstractmethod
    async def call(self, arguments: A) -> ToolResult:
        """Do it.

        Raises:
            ToolError: it could not be done. The agent reads the message.
        """

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
    """Return ``result`` as the JSON text that the agent reads, cut at :data:`MAX_RESULT_CHARACTERS`."""
    text = json.dumps(result.model_dump(mode="json", exclude_defaults=True), ensure_ascii=False)
    if len(text) <= MAX_RESULT_CHARACTERS:
        return text
    return text[:MAX_RESULT_CHARACTERS] + " … (cut)"
