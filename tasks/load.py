"""What is free where this process runs: CPU, memory and network, from Linux's own accounts.

Where a control group (version 2: containers, systemd) limits CPU or memory, that limit counts, else the machine. What
cannot be read counts as free: shards of one kind are then as good as each other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tasks.contracts.weights import Load

_LEAST_SECONDS: Final = 1.0
_MBIT: Final = 1_000_000 / 8
"""Bytes."""
_MOST_BYTES: Final = 65536


class Meter:
    """Reads means since the reading before. What is asked for within a second is not read again.

    ``clock`` gives seconds of any clock; ``root`` is where ``/proc`` and ``/sys`` are.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, root: Path = Path("/")) -> None:
        self._clock = clock
        self._proc = str(root / "proc")
        self._group = _group(root)
        self._read_at = clock()
        self._cpu = self._cpu_counts()
        self._network = self._network_counts()
        self._cpu_free = 1.0
        self._memory_free = self._free_memory()
        self._mbit = 0.0

    def load(self, bandwidth_mbit: float) -> Load:
        """Return what is free; of the network, the rest of ``bandwidth_mbit`` in the busier direction."""
        now = self._clock()
        seconds = now - self._read_at
        if seconds >= _LEAST_SECONDS:
            self._read_at = now
            self._read(seconds)
        return Load(
            cpu_free=self._cpu_free,
            memory_free=self._memory_free,
            network_free=_fraction(1 - self._mbit / bandwidth_mbit),
        )

    def _read(self, seconds: float) -> None:
        idle, total = self._cpu
        self._cpu = self._cpu_counts()
        passed = self._cpu[1] - total
        self._cpu_free = _fraction((self._cpu[0] - idle) / passed) if passed > 0 else 1.0
        before, self._network = self._network, self._network_counts()
        moved = [count - before.get(name, count) for name, count in self._network.items()]
        self._mbit = max(moved, default=0) / _MBIT / seconds
        self._memory_free = self._free_memory()

    def _cpu_counts(self) -> tuple[float, float]:
        """Return CPU time that was left, and that there was, in any unit."""
        try:
            quota, period = _text(f"{self._group}/cpu.max").split()
            if quota != "max":
                used = _entry(_text(f"{self._group}/cpu.stat"), "usage_usec ") / 1e6
                had = self._clock() * int(quota) / int(period)
                return had - used, had
        except (OSError, ValueError, IndexError):
            pass  # no control group, or none with a limit
        try:
            ticks = [int(word) for word in _text(f"{self._proc}/stat").partition("\n")[0].split()[1:9]]
            return ticks[3] + ticks[4], sum(ticks)
        except (OSError, ValueError, IndexError):
            return 0.0, 0.0

    def _free_memory(self) -> float:
        try:
            limit = _text(f"{self._group}/memory.max").strip()
            if limit != "max":
                used = int(_text(f"{self._group}/memory.current"))
                # Cached files go when memory is wanted.
                used -= _entry(_text(f"{self._group}/memory.stat"), "inactive_file ")
                return _fraction(1 - used / int(limit))
        except (OSError, ValueError):
            pass
        try:
            text = _text(f"{self._proc}/meminfo")
            return _fraction(_entry(text, "MemAvailable:") / _entry(text, "MemTotal:"))
        except (OSError, ValueError, ZeroDivisionError):
            return 1.0

    def _network_counts(self) -> dict[str, int]:
        """Return bytes by interface and direction. Bridges count what others count too, so they are never added up."""
        try:
            lines = _text(f"{self._proc}/self/net/dev").splitlines()[2:]
            counts = {}
            for line in lines:
                name, _, words = line.partition(":")
                if name.strip() != "lo":
                    fields = words.split()
                    counts[f"{name} in"], counts[f"{name} out"] = int(fields[0]), int(fields[8])
        except (OSError, ValueError, IndexError):
            return {}
        return counts


def _group(root: Path) -> str:
    """Return the folder of this process's control group, which need not be there."""
    try:
        groups = _text(f"{root}/proc/self/cgroup").splitlines()
    except OSError:
        groups = []
    path = next((line.removeprefix("0::/") for line in groups if line.startswith("0::/")), "")
    return str(root / "sys/fs/cgroup" / path)


def _text(path: str) -> str:
    """Return a small file whole. Straight from the system: what :mod:`io` adds takes ten times as long."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, _MOST_BYTES).decode()
    finally:
        os.close(descriptor)


def _entry(text: str, name: str) -> int:
    """Return the number after ``name``, with which a line of ``text`` begins."""
    _, found, rest = f"\n{text}".partition(f"\n{name}")
    if not found:
        raise ValueError(name)
    return int(rest.split(maxsplit=1)[0])


def _fraction(value: float) -> float:
    return min(max(value, 0.0), 1.0)
