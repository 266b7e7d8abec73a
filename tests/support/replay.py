"""Models that say what a script says: AutoGen's replay client behind the runner's registry."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from autogen_core import FunctionCall
from autogen_core.models import CreateResult, FunctionExecutionResultMessage, RequestUsage
from autogen_ext.models.replay import ReplayChatCompletionClient

from tasks.agents.models.base import INFO
from tasks.agents.team import TeamRunner
from tasks.agents.tools.registry import Factory, ToolRegistry
from tasks.settings import ModelSettings, Settings
from tasks.stores.objects import ObjectStore

Line = str | CreateResult


def wants(tool: str, **arguments: Any) -> CreateResult:
    """Say that the model wants to call ``tool``."""
    return wants_all((tool, arguments))


def wants_all(*calls: tuple[str, dict[str, Any]]) -> CreateResult:
    """Say that the model wants to call several tools at once."""
    return CreateResult(
        finish_reason="function_calls",
        content=[
            FunctionCall(id=f"call-{number}", name=name, arguments=json.dumps(arguments))
            for number, (name, arguments) in enumerate(calls)
        ],
        usage=RequestUsage(1, 1),
        cached=False,
    )


class Replay(ReplayChatCompletionClient):
    """AutoGen's client, with what a model client has here."""

    context_tokens = 100_000
    label = ""


class ReplayModels:
    """Stands in for the registry: every request hears ``script`` from its beginning."""

    def __init__(self, *script: Line) -> None:
        self.script = script
        self.clients: list[Replay] = []

    @asynccontextmanager
    async def using(
        self, name: str | None, *, temperature: float, max_tokens: int | None = None
    ) -> AsyncIterator[tuple[Replay, str]]:
        self.clients.append(Replay(list(self.script), INFO))
        yield self.clients[-1], "replay"

    def resolve(self, name: str | None) -> SimpleNamespace:
        return SimpleNamespace(settings=ModelSettings())

    async def close(self) -> None:
        return

    @property
    def read(self) -> list[str]:
        """What tools told the models, in order."""
        asked = [client.create_calls[-1]["messages"] for client in self.clients if client.create_calls]
        results = [m for messages in asked for m in messages if isinstance(m, FunctionExecutionResultMessage)]
        return [part.content for message in results for part in message.content]


def runner(
    settings: Settings,
    models: ReplayModels,
    *,
    factories: dict[str, Factory] | None = None,
    data: ObjectStore | None = None,
    environ: dict[str, str] | None = None,
) -> TeamRunner:
    """Return the real runner, with ``models`` in place of real ones."""
    tools = ToolRegistry(settings.tools, factories, data=data, environ=environ)
    return TeamRunner(settings, models=models, tools=tools)  # type: ignore[arg-type]
