"""The autoscaler's side of the warm parent. Whatever becomes of that, workers start without it."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from scaling.parent import MESSAGE_BYTES, Answer, Forked, Order, Ready, Refused
from scaling.processes import Processes, Spawned
from tasks.log import get_logger
from tasks.settings import ScalingSettings

log = get_logger()

PARENT: Final = "warm-parent"
_ANSWER_SECONDS: Final = 5.0
_RESTART_SECONDS: Final = 60.0

_encode: Final = msgspec.json.Encoder().encode
_answer: Final[Callable[[bytes], Answer]] = msgspec.json.Decoder(Answer).decode


@asynccontextmanager
async def warm_parent(settings: ScalingSettings, processes: Processes) -> AsyncIterator[WarmParent | None]:
    """Yield a warm parent where the settings want one and this system bears it."""
    if not settings.warm_parent or sys.platform != "linux":
        if settings.warm_parent:
            log.warning("scaling.warm_parent: needs Linux, workers start without it")
        yield None
        return
    parent = WarmParent(processes, [sys.executable, "-m", "handlers.cli.parent", str(processes.folder)])
    try:
        yield parent
    finally:
        parent.close()


class WarmParent:
    """A process of :mod:`scaling.parent`, run by ``command``. Use it from one thread."""

    def __init__(
        self, processes: Processes, command: Sequence[str], *, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Start it: it takes about a second to be ready, and until then forks nothing. ``now`` gives seconds."""
        self._processes = processes
        self._command = command
        self._now = now
        self._channel: socket.socket | None = None
        self._ready = False
        self._start()

    def fork(self, name: str, pool: str) -> Spawned | None:
        """Return a new worker of ``pool``, or None: then start one in another way.

        A parent that is gone is started again, a minute after its last start at the earliest.
        """
        if self._channel is None:
            if self._now() - self._started >= _RESTART_SECONDS:
                self._start()
            return None
        try:
            return self._ask(self._channel, name, pool)
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("warm parent given up, workers start without it", error=str(error) or type(error).__name__)
            self.close()
            return self._processes.find(name)  # it may have obeyed before it went

    def close(self) -> None:
        """End it. Its workers go on."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
            self._processes.stop([self._process], grace=0)  # one that hangs does not see that the channel is closed

    def _start(self) -> None:
        self._started = self._now()
        self._ready = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = self._processes.start(PARENT, self._command, stdin=theirs.fileno())
            except OSError as error:
                ours.close()
                log.warning("warm parent not started, workers start without it", error=str(error))
            else:
                self._channel = ours

    def _ask(self, channel: socket.socket, name: str, pool: str) -> Spawned | None:
        """Raises OSError where the parent is gone, refuses, or does not answer in time."""
        if not self._is_ready(channel):
            return None
        channel.settimeout(_ANSWER_SECONDS)
        channel.send(_encode(Order(name, pool)))
        answer = _answer(channel.recv(MESSAGE_BYTES) or _gone())
        if isinstance(answer, Forked):
            return Spawned(name, answer.pid, answer.created)
        raise OSError(answer.reason if isinstance(answer, Refused) else f"to an order it answered {answer}")

    def _is_ready(self, channel: socket.socket) -> bool:
        if not self._ready:
            channel.setblocking(False)
            try:
                said = channel.recv(MESSAGE_BYTES)
            except BlockingIOError:
                return False
            self._ready = isinstance(_answer(said or _gone()), Ready)
        return self._ready


def _gone() -> bytes:
    raise ConnectionResetError("it has ended")
