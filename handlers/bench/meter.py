"""Reads CPU and memory of exactly the processes that take part."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import psutil

from handlers.bench.figures import Reading

SUBMITTER: Final = "submitter"
"""This process: it submits, and looks how many are done."""


class Meter:
    """Counts the processes ``pids``, by name, and this one."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._processes[SUBMITTER] = psutil.Process()
        self.peaks: dict[str, int] = {}
        """The most resident memory seen of each process, in bytes."""
        self.peak_total = 0

    @property
    def names(self) -> list[str]:
        """Return which processes are counted."""
        return list(self._processes)

    def read(self) -> Reading:
        """Return the counters of now."""
        cpu = {name: self._cpu(name, process) for name, process in self._processes.items()}
        return Reading(time.perf_counter(), cpu, _busy())

    def weigh(self) -> None:
        """Look at the resident memory and keep the peaks."""
        sizes: dict[str, int] = {}
        for name, process in self._processes.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                sizes[name] = int(process.memory_info().rss)
                self.peaks[name] = max(self.peaks.get(name, 0), sizes[name])
        self.peak_total = max(self.peak_total, sum(sizes.values()))

    @staticmethod
    def _cpu(name: str, process: psutil.Process) -> float:
        times = process.cpu_times()
        # A server's own children (Redis rewriting its log) are its work; this process's are counted by themselves.
        children = 0.0 if name == SUBMITTER else times.children_user + times.children_system
        return float(times.user + times.system + children)


def _busy() -> float:
    """Return the CPU seconds that this machine has worked since it was started, whoever for."""
    times: Any = psutil.cpu_times()
    kinds = ("user", "nice", "system", "irq", "softirq")  # what guests and the hypervisor take is not among these
    return sum(float(getattr(times, kind, 0.0)) for kind in kinds)


def machine() -> dict[str, Any]:
    """Return what the figures depend on: cores, processor, memory in MB, Python, system."""
    return {
        "cores": psutil.cpu_count() or 1,
        "processor": _processor(),
        "memory_mb": round(psutil.virtual_memory().total / 2**20),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
