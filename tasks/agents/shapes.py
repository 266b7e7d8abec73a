"""The shapes that an agent type can have: one assistant, or members that talk to each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_core import CancellationToken
from autogen_core.models import AssistantMessage, UserMessage
from pydantic import ValidationError

from tasks.agents.models.base import ModelClient
from tasks.agents.state import bounded, messages_of
from tasks.agents.tools.bench import Bench
from tasks.errors import InvalidInput, ModelError
from tasks.settings import TeamSettings

if TYPE_CHECKING:
    from autogen_agentchat.base import Team

_USER = "user"


class Shape(Protocol):
    """Answers one text, once."""

    async def load(self, state: dict[str, Any] | None) -> None:
        """Go on where a session's ``state`` ends; raises :class:`InvalidInput` where it is none."""
        ...

    async def run(self, text: str, token: CancellationToken) -> str:
        """Return the answer to ``text``."""
        ...

    async def state(self) -> dict[str, Any]:
        """Return the session's state after the answer. Only then: AutoGen's is not consistent while it runs."""
        ...

    async def stop(self) -> None:
        """End what still runs."""
        ...


def assistant(
    name: str, client: ModelClient, bench: Bench, *, instructions: str, max_tool_calls: int
) -> AssistantAgent:
    """Return an AutoGen assistant. After its last tool call it is asked once more."""
    return AssistantAgent(
        name=name,
        model_client=client,
        workbench=bench,
        system_message=instructions,
        reflect_on_tool_use=True,
        max_tool_iterations=max_tool_calls + 1,
    )


class Single:
    """One assistant."""

    def __init__(self, agent: AssistantAgent) -> None:
        self._agent = agent

    async def load(self, state: dict[str, Any] | None) -> None:
        """See :class:`Shape`."""
        if state:
            await _load(self._agent, bounded(state))

    async def run(self, text: str, token: CancellationToken) -> str:
        """See :class:`Shape`."""
        response = await self._agent.on_messages([TextMessage(content=text, source=_USER)], token)
        return response.chat_message.to_text().strip()

    async def state(self) -> dict[str, Any]:
        """See :class:`Shape`."""
        return bounded(dict(await self._agent.save_state()))

    async def stop(self) -> None:
        """See :class:`Shape`."""


class Group:
    """Members that talk to each other, by AutoGen's group chats; ``chooser`` says who speaks in a ``selector``.

    A session keeps what was asked and what was answered, in the same form as that of a single assistant; what the
    members said to each other is not kept.
    """

    def __init__(self, settings: TeamSettings, members: Sequence[AssistantAgent], chooser: ModelClient) -> None:
        # A runtime of our own: AutoGen waits for the end of its own one, also when it was told to stop.
        from autogen_core import SingleThreadedAgentRuntime

        self._until = settings.until
        self._members = list(members)
        self._runtime = SingleThreadedAgentRuntime()
        self._chat = _chat(settings, self._members, chooser, self._runtime)
        self._said: list[dict[str, Any]] = []

    async def load(self, state: dict[str, Any] | None) -> None:
        """See :class:`Shape`."""
        if not state:
            return
        state = bounded(state)
        self._said = messages_of(state)
        for member in self._members:
            await _load(member, state)

    async def run(self, text: str, token: CancellationToken) -> str:
        """See :class:`Shape`."""
        self._runtime.start()
        result = await self._chat.run(task=text, cancellation_token=token)
        answer = self._answer([message for message in result.messages if isinstance(message, BaseChatMessage)])
        asked, told = UserMessage(content=text, source=_USER), AssistantMessage(content=answer, source="team")
        self._said += [asked.model_dump(), told.model_dump()]
        return answer

    async def state(self) -> dict[str, Any]:
        """See :class:`Shape`."""
        empty = dict(await self._members[0].save_state())
        return bounded(empty | {"llm_context": {"messages": self._said}})

    async def stop(self) -> None:
        """See :class:`Shape`."""
        await self._runtime.close()

    def _answer(self, messages: Sequence[BaseChatMessage]) -> str:
        """Return a member's last message, less the word that ends the talk; the one before where nothing is left."""
        for message in reversed(messages):
            text = message.to_text()
            text = (text.replace(self._until, "") if self._until else text).strip()
            if text and message.source != _USER:
                return text
        raise ModelError("the team said nothing")


def _chat(settings: TeamSettings, members: list[AssistantAgent], chooser: ModelClient, runtime: Any) -> Team:
    from autogen_agentchat.conditions import TextMentionTermination
    from autogen_agentchat.teams import RoundRobinGroupChat, SelectorGroupChat

    names = [member.name for member in members]
    ends = TextMentionTermination(settings.until, sources=names) if settings.until else None
    participants: list[Any] = list(members)
    if settings.shape == "selector":
        return SelectorGroupChat(participants, chooser, termination_condition=ends, runtime=runtime)
    turns = None if ends else len(members)
    return RoundRobinGroupChat(participants, termination_condition=ends, max_turns=turns, runtime=runtime)


async def _load(agent: AssistantAgent, state: dict[str, Any]) -> None:
    try:
        await agent.load_state(state)
    except ValidationError as error:
        # Without pydantic's words: they quote the conversation.
        raise InvalidInput("session_state: is not the saved state of an agent") from error
