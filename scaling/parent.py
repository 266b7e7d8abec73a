"""The warm parent: one process that has imported what workers import, and forks a worker whenever it is asked to.

A fork copies one thread and everything that is open. So the parent has one thread and opens nothing: no event loop, no
connection, no inference session. It looks before each fork, and refuses where that does not hold. Between two requests
it sleeps in one ``recv``. Linux only: it looks into ``/proc``, and elsewhere system libraries do not bear a fork.

It is asked through its standard input, one end of a socket pair: when the other end is closed, it ends. Its workers are
sessions of their own and outlive it.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final, NoReturn

import msgspec
from msgspec import Meta, Struct

from scaling.processes import Processes
from tasks.log import get_logger

log = get_logger()

MESSAGE_BYTES: Final = 4096
"""More than any message takes."""

_FileName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._@-]{0,200}\Z")]


class Order(Struct, frozen=True, forbid_unknown_fields=True, tag="order"):
    """Asks for a worker of ``pool``, whose pid file and log are called ``name``."""

    name: _FileName
    pool: str


class Ready(Struct, frozen=True, forbid_unknown_fields=True, tag="ready"):
    """Everything is imported. Said once, unasked."""


class Forked(Struct, frozen=True, forbid_unknown_fields=True, tag="forked"):
    """The worker of the order; its pid file is written. ``created`` as in :class:`~scaling.processes.Spawned`."""

    pid: int
    created: float


class Refused(Struct, frozen=True, forbid_unknown_fields=True, tag="refused"):
    """There is no worker, for this reason."""

    reason: str


Answer = Ready | Forked | Refused

_encode: Final = msgspec.json.Encoder().encode
_order: Final = msgspec.json.Decoder(Order).decode


def serve(channel: socket.socket, processes: Processes, modules: Iterable[str], work: Callable[[str], None]) -> None:
    """Import ``modules``, then fork a worker for each order on ``channel`` (``SOCK_SEQPACKET``), until it is closed.

    ``work`` runs in a worker, with the pool as its argument; it loads the settings, logs and connects.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system itself clears away workers that ended
    gc.disable()  # a collection would write to pages that workers share
    before = open_files()
    preload(modules)
    gc.freeze()
    with suppress(ConnectionError):  # the autoscaler ended before its worker was there
        log.info("warm parent ready")
        channel.send(_encode(Ready()))
        while data := channel.recv(MESSAGE_BYTES):
            channel.send(_encode(_obey(data, channel, processes, work, before)))


def preload(modules: Iterable[str]) -> None:
    """Import ``modules``. What is not installed is left out: a worker that needs it says what is missing."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            log.info("not preloaded", module=module, error=str(error))


def _obey(
    data: bytes,
    channel: socket.socket,
    processes: Processes,
    work: Callable[[str], None],
    before: Mapping[int, str],
) -> Answer:
    try:
        order = _order(data)
    except msgspec.MsgspecError as error:
        return Refused(f"order: {error}")
    if reason := unsafe(before):
        return Refused(reason)
    try:
        pid = os.fork()
    except OSError as error:
        return Refused(f"cannot fork: {error.strerror}")
    if pid == 0:
        _become(order, channel, processes.log(order.name), work)
    spawned = processes.enrol(order.name, pid)
    return Forked(spawned.pid, spawned.created)


def unsafe(before: Mapping[int, str]) -> str | None:
    """Return why this process must not fork, None where it may.

    ``before`` is what :func:`open_files` said before anything was imported.
    """
    others = [task.name for task in Path("/proc/self/task").iterdir() if int(task.name) != os.getpid()]
    if others:
        return f"{len(others)} threads run beside the first: {', '.join(sorted(map(_thread, others)))}"
    opened = {number: target for number, target in open_files().items() if before.get(number) != target}
    if opened:
        return f"files are open: {', '.join(sorted(opened.values()))}"
    return None


def open_files() -> dict[int, str]:
    """Return what is open in this process, by file descriptor."""
    found = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  pathlib would hide which one is its own
        with suppress(OSError):  # that one is closed by now
            found[int(name)] = str(Path(f"/proc/self/fd/{name}").readlink())
    return found


def _thread(number: str) -> str:
    try:
        return Path(f"/proc/self/task/{number}/comm").read_text("utf-8").strip()
    except OSError:
        return number  # it has just ended


def _become(order: Order, channel: socket.socket, log_file: Path, work: Callable[[str], None]) -> NoReturn:
    """Make this copy of the parent a worker with a session, a log and signals of its own; end with its work."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        channel.detach()
        _redirect(os.devnull, os.O_RDONLY, 0)
        for number in (1, 2):
            _redirect(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, number)
        gc.enable()
        work(order.pool)
        code = 0
    except BaseException:  # noqa: BLE001  nothing may return into the parent's loop
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _redirect(target: str | Path, flags: int, number: int) -> None:
    opened = os.open(target, flags, 0o644)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
