"""The agent runner on AutoGen: a fresh assistant or team for each request, thrown away after it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from autogen_core import CancellationToken

from tasks.agents.instructions import abstained, instructions_for
from tasks.agents.meter import Meter, MeteredClient
from tasks.agents.models.base import ModelClient
from tasks.agents.models.registry import ModelRegistry
from tasks.agents.shapes import Group, Shape, Single, assistant
from tasks.agents.tools.bench import Bench
from tasks.agents.tools.calls import Calls
from tasks.agents.tools.registry import ToolRegistry
from tasks.agents.types import HUMAN_ESCALATION, AgentAnswer, AgentTask, ToolCall
from tasks.contracts.result import Step
from tasks.errors import ModelError, SluiceError
from tasks.settings import AgentSettings, Settings
from tasks.stores.objects import ObjectStore

_GRACE_SECONDS: Final = 1.0
"""How long a cancelled run may take to let go, before it is left to itself."""


class TeamRunner:
    """The :class:`~tasks.agents.types.AgentRunner` on AutoGen.

    Runs any number of requests at once on one event loop. ``models`` and ``tools`` replace what ``settings``
    lead to; ``environ`` is where API keys are read from, ``data`` where attachments lie.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        models: ModelRegistry | None = None,
        tools: ToolRegistry | None = None,
        environ: Mapping[str, str] | None = None,
        data: ObjectStore | None = None,
    ) -> None:
        self._models = models or ModelRegistry(settings, environ=environ)
        self._served = set[str]()
        self._tools = tools or ToolRegistry(settings.tools, data=data, environ=environ)

    def check(self, agent: AgentSettings) -> None:
        """Raise :class:`SettingsError` where a tool of ``agent`` does not exist or cannot be set up."""
        self._served.add(agent.type)
        self._tools.check(agent)

    async def run(self, task: AgentTask) -> AgentAnswer:
        """Answer ``task``; see :meth:`tasks.agents.types.AgentRunner.run`."""
        steps: list[Step] = []

        def finished(call: ToolCall) -> None:
            steps.append(_step(call))
            if task.on_tool is not None:
                task.on_tool(call)

        calls = Calls.of(task, self._tools.context(task), finished)
        meter = Meter(task.agent, task.spent, task.wanted)
        async with contextlib.AsyncExitStack() as stack:
            assembly = _Assembly(task, self._models, self._tools, calls, meter, stack)
            shape = await assembly.shape()
            await shape.load(task.session_state)
            output = await _within_deadline(shape, task, calls, meter)
            why = abstained(output)
            return AgentAnswer(
                output=why or output,
                model=assembly.label,
                usage=meter.usage(len(steps)),
                steps=tuple(steps),
                session_state=await shape.state(),
                escalated=why is not None or task.agent.type == HUMAN_ESCALATION,
                turns=meter.turns,
            )

    async def preload(self, models: Iterable[str]) -> None:
        """Make the clients of ``models`` now, and open their connections."""
        await self._models.preload(models)

    async def configure(self, settings: Settings) -> None:
        """Let models be what ``settings`` say from now on; running requests end on what they began with.

        Raises:
            SettingsError: a tool cannot be set up. Nothing has changed.
        """
        for agent in settings.agents:
            if agent.type in self._served:
                self.check(agent)
        await self._models.configure(settings)

    async def close(self) -> None:
        """Close the connections to models and tools."""
        await self._models.close()
        await self._tools.close()


class _Assembly:
    """Puts together what answers one task. Its models' connections stay open as long as ``stack``."""

    def __init__(
        self,
        task: AgentTask,
        models: ModelRegistry,
        tools: ToolRegistry,
        calls: Calls,
        meter: Meter,
        stack: contextlib.AsyncExitStack,
    ) -> None:
        self._task = task
        self._models = models
        self._tools = tools
        self._calls = calls
        self._meter = meter
        self._stack = stack
        self._clients: list[tuple[ModelClient, str]] = []

    @property
    def label(self) -> str:
        """Return what results call the models that answered, each once."""
        return " + ".join(dict.fromkeys(client.label or label for client, label in self._clients))

    async def shape(self) -> Shape:
        """Return the assistant or the team of the task's agent type."""
        agent = self._task.agent
        if agent.team is None:
            client = await self._client(agent.model, agent.temperature, agent.max_tokens)
            bench = await self._bench(agent.tools)
            able = self._models.resolve(self._task.model or agent.model).settings.plans
            told = instructions_for(agent, may_abstain=able)
            return Single(assistant(agent.type, client, bench, instructions=told, max_tool_calls=agent.max_tool_calls))
        members = []
        for member in agent.team.members:
            client = await self._client(member.model or agent.model, member.temperature, member.max_tokens)
            bench = await self._bench(member.tools)
            told = member.instructions
            members.append(
                assistant(member.name, client, bench, instructions=told, max_tool_calls=agent.max_tool_calls)
            )
        chooser = client
        if agent.team.shape == "selector":
            chooser = await self._client(agent.model, 0.0, agent.max_tokens)
        group = Group(agent.team, members, chooser)
        self._stack.push_async_callback(group.stop)
        return group

    async def _bench(self, tools: Sequence[str]) -> Bench:
        return Bench(await self._tools.ready(tools, self._task), self._calls)

    async def _client(self, model: str | None, temperature: float, max_tokens: int | None) -> ModelClient:
        opened = self._models.using(self._task.model or model, temperature=temperature, max_tokens=max_tokens)
        self._clients.append(await self._stack.enter_async_context(opened))
        return MeteredClient(self._clients[-1][0], self._meter)


async def _within_deadline(shape: Shape, task: AgentTask, calls: Calls, meter: Meter) -> str:
    """Run ``shape`` once, and have let go of it when this returns or raises.

    The deadline is our own: AutoGen waits for ever where a tool call is cancelled at the wrong moment.
    """
    token = CancellationToken()
    work = asyncio.ensure_future(shape.run(task.text, token))
    broken = asyncio.ensure_future(calls.broken.wait())
    try:
        await asyncio.wait({work, broken}, timeout=task.agent.deadline_seconds, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        await _let_go({work, *meter.running, *calls.running}, token)
        raise
    finally:
        broken.cancel()
    if calls.fault or not work.done():
        await _let_go({work, *meter.running, *calls.running}, token)
        late = f"deadline: agent {task.agent.type} gave no answer within {task.agent.deadline_seconds:g} s"
        raise calls.fault or ModelError(late)
    try:
        return work.result()
    except SluiceError:
        raise
    except asyncio.CancelledError as error:
        raise ModelError(f"agent {task.agent.type} was cancelled from within") from error
    except Exception as error:
        if meter.fault:
            raise meter.fault from error
        # AutoGen's own exceptions may quote the conversation, so only their kind is passed on.
        raise ModelError(f"agent {task.agent.type} failed: {type(error).__name__}") from error


async def _let_go(running: set[asyncio.Future[Any]], token: CancellationToken) -> None:
    token.cancel()
    for left in running:
        left.cancel()
    await asyncio.wait(running, timeout=_GRACE_SECONDS)
    for left in running:
        # Whatever comes of it later is of no interest, and must not be reported as forgotten.
        left.add_done_callback(lambda future: future.cancelled() or future.exception())


def _step(call: ToolCall) -> Step:
    detail = call.error or json.dumps(call.arguments, ensure_ascii=False, default=str)
    return Step(name=call.name, detail=detail, ok=call.ok, milliseconds=round(call.milliseconds, 3))
