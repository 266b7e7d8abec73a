"""Work beside what serves: in a thread that the processor prefers others to."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, TypeVar

T = TypeVar("T")

_NICE: Final = 10


def step_back() -> None:
    """Lower the priority of the thread that calls this, for good. Only Linux has one for each thread.

    Not for work that holds the interpreter for long, or starts threads that serve: they would wait, or step back, too.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


async def gently(function: Callable[..., T], *arguments: object) -> T:
    """Return ``function(*arguments)``, run in a thread of its own that steps back."""
    executor = ThreadPoolExecutor(1, "sluice-gentle", initializer=step_back)
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, function, *arguments)
    finally:
        executor.shutdown(wait=False)
