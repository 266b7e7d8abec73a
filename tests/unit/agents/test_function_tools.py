"""A function as a tool: what its signature and docstring become, and what it costs to get them wrong."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from tasks.agents.tools import ToolContext, ToolError, ToolUncertain, tool
from tasks.agents.tools.base import Effect
from tasks.agents.tools.function import FunctionTool
from tasks.errors import SettingsError


class Forecast(BaseModel):
    celsius: float
    on: date


@tool(read_only=True)
async def weather(
    city: str, days: Annotated[int, Field(ge=1, le=7)] = 1, unit: Literal["c", "f"] = "c", *, context: ToolContext
) -> list[Forecast]:
    """The weather in a city,
    in the next days.

    Args:
        city: its English name
        days (int): how many

    Returns:
        a forecast for each day
    """
    if city == "Atlantis":
        raise ToolError(f"{context.tenant} knows no such city")
    return [Forecast(celsius=7.5, on=date(2030, 1, day)) for day in range(1, days + 1)]


def made(function: Callable[..., Any], **fields: Any) -> FunctionTool:
    return FunctionTool("made", function, **{"timeout_seconds": 5, "source": "weather-tools 1.0", **fields})


def test_the_schema_is_what_the_function_says() -> None:
    assert made(weather).schema == {
        "name": "made",
        "description": "The weather in a city, in the next days.",
        "parameters": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "city": {"type": "string", "description": "its English name"},
                "days": {"type": "integer", "default": 1, "minimum": 1, "maximum": 7, "description": "how many"},
                "unit": {"type": "string", "default": "c", "enum": ["c", "f"]},
            },
            "required": ["city"],
        },
    }


async def test_it_is_called_with_typed_arguments_and_for_somebody() -> None:
    it = made(weather)
    result = await it.call(it.arguments.model_validate({"city": "Oslo", "days": 2}), ToolContext())
    assert json.loads(result.text) == [{"celsius": 7.5, "on": "2030-01-01"}, {"celsius": 7.5, "on": "2030-01-02"}]
    with pytest.raises(ToolError, match="acme knows no such city"):
        await it.call(it.arguments.model_validate({"city": "Atlantis"}), ToolContext(tenant="acme"))
    for wrong in ({}, {"city": "Oslo", "days": 8}, {"city": "Oslo", "context": {}}):
        with pytest.raises(ValidationError):
            it.arguments.model_validate(wrong)


async def test_a_plain_function_does_not_hold_up_the_loop() -> None:
    def slow(text: str) -> str:
        """Take a while."""
        time.sleep(0.2)
        return text

    it, ticks = made(slow), 0
    work = asyncio.ensure_future(it.call(it.arguments.model_validate({"text": "done"}), ToolContext()))
    while not work.done():
        await asyncio.sleep(0.01)
        ticks += 1
    assert (work.result().text, ticks > 5) == ("done", True)


def test_who_declares_nothing_is_called_once() -> None:
    def plain() -> None:
        """Do."""

    @tool(idempotent=True)
    def twice() -> None:
        """Do."""

    assert [made(function).effect for function in (weather, twice, plain)] == [
        Effect.READ,
        Effect.IDEMPOTENT,
        Effect.ONCE,
    ]


@pytest.mark.parametrize(("declared", "kind"), [({}, ToolUncertain), ({"read_only": True}, ToolError)])
async def test_a_call_that_takes_too_long_is_in_doubt_unless_it_reads(
    declared: dict[str, bool], kind: type[Exception]
) -> None:
    @tool(**declared)
    async def hang() -> None:
        """Hang."""
        await asyncio.sleep(60)

    it = made(hang, timeout_seconds=0.05)
    with pytest.raises(kind, match=r"longer than 0\.05 s") as raised:
        await it.call(it.arguments(), ToolContext())
    assert type(raised.value) is kind


def unhinted(city) -> str:  # type: ignore[no-untyped-def]
    """Say."""
    return str(city)


def undocumented(city: str) -> str:
    return city


def gathering(*cities: str) -> str:
    """Say."""
    return ""


def untold(thing: Nowhere) -> str:  # type: ignore[name-defined]  # noqa: F821
    """Say."""
    return ""


def opaque(thing: object, other: Callable[[], int]) -> str:
    """Say."""
    return ""


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (unhinted, "parameter city has no type hint"),
        (undocumented, "needs a docstring"),
        (gathering, "parameter cities cannot be given by name"),
        (untold, "Nowhere"),
        (opaque, "other|schema"),
    ],
)
def test_a_function_that_cannot_be_a_tool_is_an_error_that_names_its_package(
    function: Callable[..., Any], problem: str
) -> None:
    with pytest.raises(SettingsError, match=f"tool 'made' of weather-tools 1.0: .*({problem})"):
        made(function)
