"""A function as a tool: its name, type hints and docstring say everything."""

from __future__ import annotations

import asyncio
import inspect
import re
import typing
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

from pydantic import Field, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, create_model

from tasks.agents.tools.base import Effect, Said, Tool, ToolArguments, ToolContext
from tasks.errors import SettingsError, ToolError, ToolUncertain

F = TypeVar("F", bound=Callable[..., Any])

_EFFECT: Final = "__sluice_effect__"
_SECTION: Final = re.compile(r"^(Args|Arguments|Returns|Raises|Yields|Example|Examples|Note|Notes):\s*$", re.MULTILINE)
_ARGUMENT: Final = re.compile(r"^\s+\*{0,2}(\w+)(?:\s*\([^)]*\))?:\s*(.+)$")


def tool(*, read_only: bool = False, idempotent: bool = False) -> Callable[[F], F]:
    """Say of a tool function what calling it twice does; without this it is never repeated.

    ``read_only``: it changes nothing. ``idempotent``: twice is as good as once, also long after.
    """

    def declare(function: F) -> F:
        effect = Effect.READ if read_only else Effect.IDEMPOTENT if idempotent else Effect.ONCE
        setattr(function, _EFFECT, effect)
        return function

    return declare


class FunctionTool(Tool[ToolArguments]):
    """The tool ``name`` that calls ``function``, at most ``timeout_seconds`` long. A plain function runs in a thread.

    A parameter that is annotated as :class:`ToolContext` is filled in and hidden from the model.

    Raises:
        SettingsError: the function cannot be a tool. ``source`` is whose it is, for the message.
    """

    def __init__(self, name: str, function: Callable[..., Any], *, timeout_seconds: float, source: str) -> None:
        self.name = name
        self.effect = getattr(function, _EFFECT, Effect.ONCE)
        self._function = function
        self._timeout = timeout_seconds
        self.description, described = _documented(function)
        try:
            self._context, fields, self._returns = _signature(function, described)
            self.arguments = create_model(f"{name}_arguments", __base__=ToolArguments, **fields)
            _ = self.schema
        except (TypeError, NameError, ValueError, PydanticUserError, PydanticSchemaGenerationError) as error:
            raise SettingsError(f"tool {name!r} of {source}: {error}") from error
        if not self.description:
            raise SettingsError(f"tool {name!r} of {source}: its function needs a docstring: it is what a model reads")

    async def call(self, arguments: ToolArguments, context: ToolContext) -> Said:
        """Call the function; what it returns is read as JSON, text as it is.

        Raises:
            ToolError: the function says so, or it took too long.
        """
        given = {name: getattr(arguments, name) for name in type(arguments).model_fields}
        if self._context:
            given[self._context] = context
        try:
            async with asyncio.timeout(self._timeout):
                if inspect.iscoroutinefunction(self._function):
                    returned = await self._function(**given)
                else:
                    returned = await asyncio.to_thread(self._function, **given)
        except TimeoutError as error:
            # A thread goes on: nobody knows what it has done, or will.
            slow = ToolError if self.effect is Effect.READ else ToolUncertain
            raise slow(f"the tool {self.name} took longer than {self._timeout:g} s") from error
        if isinstance(returned, str):
            return Said(text=returned)
        return Said(text=self._returns.dump_json(returned).decode())


def _documented(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Return what the docstring says of the function, and of each parameter."""
    text = inspect.getdoc(function) or ""
    about = _SECTION.split(text)[0].strip()
    found = [_ARGUMENT.match(line) for line in text[len(about) :].splitlines()]
    return " ".join(about.split()), {match[1]: match[2].strip() for match in found if match}


def _signature(
    function: Callable[..., Any], described: dict[str, str]
) -> tuple[str | None, dict[str, Any], TypeAdapter[Any]]:
    """Return the parameter that takes the context, the fields of the arguments, and how what it returns is spelt."""
    hints = typing.get_type_hints(function, include_extras=True)
    context, fields = None, {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"parameter {name} cannot be given by name")
        if name not in hints:
            raise TypeError(f"parameter {name} has no type hint")
        if hints[name] is ToolContext:
            context = name
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        kind = hints[name]
        if name in described:
            kind = Annotated[kind, Field(description=described[name])]
        fields[name] = (kind, default)
    return context, fields, TypeAdapter(hints.get("return", Any))
