"""A connection to a Redis-protocol server that all tasks of a process share.

Commands that are sent while others are on their way travel together, in one write and one answer (pipelining), so a
server that syncs before it answers syncs once for all of them. A lost connection is made again and the command is sent
again: whoever calls must be able to bear that a command arrives twice. A server that says that another one has the keys
now is left for that one, and one that may not be written to any more for whichever the URL leads to by then.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis

from tasks.errors import StoreError, Unreachable
from tasks.log import get_logger
from tasks.stores.address import Address

log = get_logger()

_PAUSES: Final = (0.05, 0.2, 0.5, 1.0)
"""Seconds before each new try, times 0.5 to 1.5."""
_AGAIN: Final = ("LOADING", "READONLY", "MASTERDOWN", "UNBLOCKED", "CLUSTERDOWN", "TRYAGAIN", "ASK ")
"""Errors of a server that is not, or no longer, the one to talk to; nothing was done."""
_MOVED: Final = "MOVED "
"""The same, of one that knows which is: a cluster's replica, or a primary that was replaced."""
_PASSING: Final = ("NOSCRIPT", *_AGAIN, _MOVED)
_CONNECT_SECONDS: Final = 5.0
_NOT_YET: Final = object()

Word = str | bytes | int | float
Command = Sequence[Word]
Calls = Sequence[tuple[Sequence[str], Command]]


class Script:
    """A Lua script. The server keeps it under its SHA-1 once it has seen it."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, keys: Sequence[str], args: Command) -> Command:
        """Return the command that runs it."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)


def _packed(command: Command) -> bytes:
    # Its stub knows tuples of one only, and nothing of what comes back.
    packed: bytes = hiredis.pack_command(tuple(command))  # type: ignore[arg-type]
    return packed


class _Lost(Exception):
    """The connection went away before the answer came."""


class _Waiting:
    """Answers that one caller waits for; ``since`` is the loop's time."""

    __slots__ = ("answers", "future", "since", "wanted")

    def __init__(self, future: asyncio.Future[list[Any]], wanted: int, since: float) -> None:
        self.future = future
        self.wanted = wanted
        self.since = since
        self.answers: list[Any] = []


class _Wire(asyncio.Protocol):
    """One TCP or Unix connection. Not used again once it is lost."""

    def __init__(self, on_push: Callable[[list[Any]], None], timeout: float) -> None:
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._on_push = on_push
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Waiting] = deque()
        self._out: list[bytes] = []
        self._loaded: set[str] = set()
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self.lost: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # stream connections have a full transport

    def subscribe(self, channel: str) -> asyncio.Future[list[Any]]:
        """Subscribe to ``channel``. The one answer is a push where the server consents, and an error where not."""
        return self.send(_packed(("SUBSCRIBE", channel)), 1)

    def run(self, script: Script, packed: bytes, wanted: int) -> asyncio.Future[list[Any]]:
        """Send calls of ``script``. In front of the first ones on this connection, with an answer more, its text."""
        if script.sha in self._loaded:
            return self.send(packed, wanted)
        self._loaded.add(script.sha)
        return self.send(_packed(("SCRIPT", "LOAD", script.text)) + packed, wanted + 1)

    def send(self, packed: bytes, wanted: int) -> asyncio.Future[list[Any]]:
        """Send commands that have ``wanted`` answers; with all that is sent in this turn of the loop."""
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        if self.lost:
            future.set_exception(_Lost(str(self.lost)))
            return future
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packed)
        self._waiting.append(_Waiting(future, wanted, self._loop.time()))
        if self._watch is None:
            self._watch = self._loop.call_later(self._timeout, self._look)
        return future

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while True:
            try:
                answer = self._reader.gets()
            except hiredis.ProtocolError as error:
                self._give_up(error)
                return
            if answer is _NOT_YET:
                return
            if isinstance(answer, hiredis.PushNotification) and answer[0] != b"subscribe":
                self._on_push(answer)
                continue
            if not self._waiting:
                self._give_up(ConnectionError(f"unasked: {answer!r}"))
                return
            first = self._waiting[0]
            first.answers.append(answer)
            if len(first.answers) == first.wanted:
                self._waiting.popleft()
                if not first.future.done():
                    first.future.set_result(first.answers)

    def connection_lost(self, exc: Exception | None) -> None:
        self._give_up(exc or ConnectionError("closed by the server"))

    def close(self) -> None:
        """Let the connection go."""
        self._give_up(ConnectionError("closed"))

    def _flush(self) -> None:
        if self._transport is not None and not self.lost:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _look(self) -> None:
        """Give a connection up whose oldest command has waited too long."""
        self._watch = None
        if self._waiting:
            left = self._waiting[0].since + self._timeout - self._loop.time()
            if left <= 0:
                self._give_up(TimeoutError(f"no answer within {self._timeout:g} s"))
            else:
                self._watch = self._loop.call_later(left, self._look)

    def _give_up(self, error: Exception) -> None:
        if self.lost:
            return
        self.lost = error
        if self._watch:
            self._watch.cancel()
        if self._transport:
            self._transport.abort()
        while self._waiting:
            future = self._waiting.popleft().future
            if not future.done():
                future.set_exception(_Lost(str(error) or type(error).__name__))


class Link:
    """See the module. ``what`` names the server in errors. Not shared between event loops."""

    def __init__(
        self, url: str, *, what: str = "redis", timeout: float = 10.0, pauses: Sequence[float] = _PAUSES
    ) -> None:
        self._address = Address.of(url)
        self._what = what
        self._timeout = timeout
        self._pauses = pauses
        self._wire: _Wire | None = None
        self._making: asyncio.Task[_Wire] | None = None
        self._elsewhere: Address | None = None
        self._scripts: dict[str, Script] = {}
        self._listeners: dict[str, Callable[[], None]] = {}
        self._closed = False

    async def call(self, *command: str | bytes | float) -> Any:
        """Send one command and return its answer; raises :class:`StoreError`."""
        [answer] = await self.calls([command])
        return answer

    async def run(self, script: Script, keys: Sequence[str], args: Command) -> Any:
        """Run a script and return its answer; raises :class:`StoreError`."""
        [answer] = await self.run_each(script, [(keys, args)])
        return answer

    async def run_each(self, script: Script, calls: Calls) -> list[Any]:
        """Run a script once for each (keys, args), in order, with one round trip; raises :class:`StoreError`."""
        if not calls:
            return []
        self._scripts[script.sha] = script
        commands = [script(keys, args) for keys, args in calls]
        packed = b"".join(map(_packed, commands))
        wire, answers = await self._exchange(lambda wire: wire.run(script, packed, len(commands)))
        return await self._mended(commands, wire, answers[-len(commands) :])

    async def calls(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands together; return their answers in order.

        Raises:
            StoreError: one of them failed, or the server cannot be reached. Some may have been done.
        """
        if not commands:
            return []
        packed = b"".join(map(_packed, commands))
        wire, answers = await self._exchange(lambda wire: wire.send(packed, len(commands)))
        return await self._mended(commands, wire, answers)

    async def listen(self, channel: str, listener: Callable[[], None]) -> None:
        """Call ``listener`` for each message on ``channel``; also after the connection was made anew.

        Raises:
            StoreError: the server refuses, or cannot be reached; in that case it is asked again with the connection.
        """
        self._listeners[channel] = listener
        _, [answer, *_] = await self._exchange(lambda wire: wire.subscribe(channel))
        if isinstance(answer, hiredis.ReplyError):
            raise StoreError(f"{self._what}: {answer}") from answer

    async def close(self) -> None:
        """Let the connection go; every command that still waits fails."""
        self._closed = True
        if self._making:
            self._making.cancel()
        if self._wire:
            self._wire.close()

    async def _exchange(self, send: Callable[[_Wire], asyncio.Future[list[Any]]]) -> tuple[_Wire, list[Any]]:
        """Return what the server answers, and the connection on which it did."""
        reason = ""
        for pause in (0.0, *self._pauses):
            if pause:
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  spreads the herd, nothing secret
            if self._closed:
                break
            try:
                wire = await self._live()
                return wire, await send(wire)
            except (_Lost, OSError, TimeoutError) as error:
                reason = str(error) or type(error).__name__
        raise Unreachable(f"{self._what} at {self._address}: {reason or 'closed'}")

    async def _mended(self, commands: Sequence[Command], wire: _Wire, answers: list[Any]) -> list[Any]:
        """Return ``answers``; what the server refused for a reason that passes is sent again, the rest raised."""
        pauses = iter((0.0, *self._pauses))
        while refused := {at: answer for at, answer in enumerate(answers) if isinstance(answer, hiredis.ReplyError)}:
            for answer in refused.values():
                if not str(answer).startswith(_PASSING):
                    raise StoreError(f"{self._what}: {answer}") from answer
            said = next((str(answer) for answer in refused.values() if not str(answer).startswith("NOSCRIPT")), "")
            pause = next(pauses, None)
            if pause is None:
                raise Unreachable(f"{self._what} at {self._address}: no server takes its keys: {said or 'NOSCRIPT'}")
            if said:
                self._leave(wire, said)
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  as above
            shas = {str(commands[at][1]) for at in refused if commands[at][0] == "EVALSHA"}
            again = [*(("SCRIPT", "LOAD", self._scripts[sha].text) for sha in shas), *(commands[at] for at in refused)]
            wire, found = await self._resent(again)
            for at, answer in zip(refused, found[len(shas) :], strict=True):
                answers[at] = answer
        return answers

    async def _resent(self, commands: Sequence[Command]) -> tuple[_Wire, list[Any]]:
        packed = b"".join(map(_packed, commands))
        return await self._exchange(lambda wire: wire.send(packed, len(commands)))

    def _leave(self, wire: _Wire, said: str) -> None:
        """Talk to another server from now on: the one that ``said`` names, else whichever the URL leads to by now."""
        if wire is not self._wire:
            return  # somebody else has left it already
        self._elsewhere = (self._elsewhere or self._address).elsewhere(said) if said.startswith(_MOVED) else None
        wire.close()

    async def _live(self) -> _Wire:
        if self._wire and not self._wire.lost:
            return self._wire
        if self._making is None or self._making.done():
            # A task of its own: whoever waits for it may be cancelled, and the others not.
            self._making = asyncio.create_task(self._make(), name=f"connect {self._what}")
            self._making.add_done_callback(lambda making: making.cancelled() or making.exception())
        return await asyncio.shield(self._making)

    async def _make(self) -> _Wire:
        address, self._elsewhere = self._elsewhere or self._address, None
        async with asyncio.timeout(min(self._timeout, _CONNECT_SECONDS)):
            self._wire = await self._connect(address)
        # Kept while it can be reached: otherwise the next try begins at the URL.
        self._elsewhere = address if address is not self._address else None
        if self._closed:
            self._wire.close()
        return self._wire

    async def _connect(self, address: Address) -> _Wire:
        loop = asyncio.get_running_loop()
        wire = _Wire(self._pushed, self._timeout)
        if address.path:
            await loop.create_unix_connection(lambda: wire, address.path)
        else:
            tls = address.tls()
            name = address.certified if tls else None
            await loop.create_connection(lambda: wire, address.host, address.port, ssl=tls, server_hostname=name)
        try:
            await self._greet(wire)
        except BaseException:
            wire.close()
            raise
        return wire

    async def _greet(self, wire: _Wire) -> None:
        greeting = self._address.greeting()
        answers = await wire.send(b"".join(map(_packed, greeting)), len(greeting))
        refused = next((answer for answer in answers if isinstance(answer, hiredis.ReplyError)), None)
        if refused is not None:
            if str(refused).startswith((*_AGAIN, "ERR max number of clients")):
                raise _Lost(str(refused))
            raise StoreError(f"{self._what} at {self._address}: {refused}")
        for channel, listener in self._listeners.items():
            [answer] = await wire.subscribe(channel)
            if isinstance(answer, hiredis.ReplyError):
                log.warning("cannot listen", channel=channel, error=str(answer))
            listener()  # for what came while nobody listened

    def _pushed(self, push: list[Any]) -> None:
        if push and push[0] == b"message":
            listener = self._listeners.get(push[1].decode())
            if listener:
                listener()
