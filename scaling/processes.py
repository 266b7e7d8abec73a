"""Processes that this machine runs for Sluice: started in the background, found again and stopped by pid."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import orjson
import psutil

_POLL_SECONDS: Final = 0.05
_KILL_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Spawned:
    """A process by name. ``created`` tells it from a later one that the system gave the same pid."""

    name: str
    pid: int
    created: float

    def is_alive(self) -> bool:
        """Tell whether it runs; a zombie does not."""
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.created) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def rss_bytes(self) -> int:
        """Return its resident memory in bytes, 0 if it is gone."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss) if self.is_alive() else 0
        except psutil.NoSuchProcess:
            return 0

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.is_alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return


class Processes:
    """The processes of one folder: a pid file and a log for each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pids = folder / "pids"
        self._logs = folder / "logs"
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
    ) -> Spawned:
        """Start ``command`` in a session of its own, reading from ``stdin``, its output in ``logs/NAME.log``."""
        self._logs.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as output:
            child = subprocess.Popen(  # noqa: S603  the command is ours
                list(command),
                stdin=stdin,
                stdout=output,
                stderr=output,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        self._children[child.pid] = child
        return self.enrol(name, child.pid)

    def enrol(self, name: str, pid: int) -> Spawned:
        """Write the pid file of a process that runs, so that it is found again."""
        spawned = Spawned(name, pid, _created(pid))
        self._pids.mkdir(parents=True, exist_ok=True)
        temporary = self._pids / f".{name}"
        temporary.write_bytes(orjson.dumps(asdict(spawned)))
        temporary.replace(self._file(name))
        return spawned

    def log(self, name: str) -> Path:
        """Return where the output of ``name`` goes."""
        return self._logs / f"{name}.log"

    def prune_logs(self, prefix: str, *, keep: int) -> None:
        """Delete the logs of ended processes whose name begins with ``prefix``, but for the newest ``keep``."""
        alive = {self.log(spawned.name) for spawned in self.all()}
        logs = sorted(self._logs.glob(f"{prefix}*.log"), key=lambda log: log.stat().st_mtime, reverse=True)
        for log in logs[keep:]:
            if log not in alive:
                log.unlink(missing_ok=True)

    def find(self, name: str) -> Spawned | None:
        """Return the process ``name`` if it runs."""
        return next((spawned for spawned in self.all() if spawned.name == name), None)

    def all(self) -> list[Spawned]:
        """Return the processes that run, and forget those that do not."""
        self._reap()
        alive = []
        for file in sorted(self._pids.glob("[!.]*.json")):
            try:
                spawned = Spawned(**orjson.loads(file.read_bytes()))
            except FileNotFoundError:
                continue  # its owner forgot it at this moment
            if spawned.is_alive():
                alive.append(spawned)
            else:
                file.unlink(missing_ok=True)
        return alive

    def stop(self, processes: Iterable[Spawned], *, grace: float) -> None:
        """Ask each to stop; after ``grace`` seconds end those that did not."""
        targets = list(processes)
        for spawned in targets:
            spawned.send(signal.SIGTERM)
        if not self._wait(targets, grace):
            for spawned in targets:
                spawned.send(signal.SIGKILL)
            self._wait(targets, _KILL_SECONDS)
        for spawned in targets:
            # The first thread of a process may be gone, and the process so look dead, while others still end.
            if child := self._children.get(spawned.pid):
                child.wait(_KILL_SECONDS)
        self.all()

    def _wait(self, targets: Iterable[Spawned], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while any(spawned.is_alive() for spawned in targets):
            if time.monotonic() > end:
                return False
            self._reap()
            time.sleep(_POLL_SECONDS)
        return True

    def _file(self, name: str) -> Path:
        return self._pids / f"{name}.json"

    def _reap(self) -> None:
        self._children = {pid: child for pid, child in self._children.items() if child.poll() is None}


def _created(pid: int) -> float:
    """Return when a process was created; 0, so that it counts as ended, where it has ended already."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return 0.0
