"""Samples a process's CPU by Python stack, and draws stacks as a flame graph. See benchmarks.where.

A stack is a tuple of ``module:function``, the outermost first; stacks map to seconds of CPU.
"""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping
from html import escape
from types import FrameType
from typing import Any, Final

Stack = tuple[str, ...]

NATIVE: Final = "threads without Python"
"""The root of what the process spent and no Python thread did."""
TICK_SECONDS: Final = 0.002
"""CPU seconds between two samples. A kernel looks at CPU clocks when its scheduler ticks: often every 4 ms only."""

_IDLE: Final = ("concurrent.futures.thread:_worker", "threading:")
_THREAD_CPU_CLOCK: Final = 3
_TO_THREAD: Final = 4


class _Event(ctypes.Structure):
    """``struct sigevent`` of 64-bit Linux."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("thread", ctypes.c_int),
        ("rest", ctypes.c_int * 11),
    )


class _Every(ctypes.Structure):
    """``struct itimerspec``: the interval, then the first time."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("seconds", "nanoseconds", "first", "first_nanoseconds"))


class Sampler:
    """Samples from :meth:`start`, on the main thread, to :meth:`stop`; ``stacks`` then holds seconds by stack.

    The timer runs on the main thread's own CPU clock: where a thread sleeps, and what others do meanwhile, weighs
    nothing. What other Python threads spent since the last sample is charged to where they are now.
    """

    def __init__(self) -> None:
        self.stacks: dict[Stack, float] = defaultdict(float)
        self.samples = 0
        self.own_seconds = 0.0
        self._last: dict[int, float] = {}
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = ctypes.c_void_p()

    def start(self) -> None:
        self._begun = time.process_time()
        signal.signal(signal.SIGPROF, self._sample)
        signal.siginterrupt(signal.SIGPROF, False)
        event = _Event(None, signal.SIGPROF, _TO_THREAD, threading.get_native_id())
        self._call("timer_create", _THREAD_CPU_CLOCK, ctypes.byref(event), ctypes.byref(self._timer))
        nanoseconds = int(TICK_SECONDS * 1e9)
        every = _Every(0, nanoseconds, 0, nanoseconds)
        self._last = {ident: seconds for ident, _, seconds, _ in _other_threads()}
        self._main = time.thread_time()
        self._call("timer_settime", self._timer, 0, ctypes.byref(every), None)

    def stop(self) -> float:
        """Return the seconds of CPU that were spent, without the sampler's own."""
        self._call("timer_delete", self._timer)
        signal.signal(signal.SIGPROF, signal.SIG_IGN)
        self._sample(0, sys._getframe(1))  # noqa: SLF001  there is no other way to one's caller
        spent = time.process_time() - self._begun - self.own_seconds
        self.stacks[(NATIVE,)] = max(spent - sum(self.stacks.values()), 0.0)
        return spent

    def _sample(self, number: int, frame: FrameType | None) -> None:
        now = time.thread_time()
        self.stacks[("main", *stack_of(frame))] += now - self._main
        self.samples += 1
        self._others()
        self._main = time.thread_time()
        self.own_seconds += self._main - now

    def _others(self) -> None:
        for ident, name, seconds, frame in _other_threads():
            stack = (name, *stack_of(frame))
            if not stack[-1].startswith(_IDLE):
                # One that sleeps now was busy elsewhere: what it spent waits for the next sight of it at work.
                self.stacks[stack] += seconds - self._last.get(ident, 0.0)
                self._last[ident] = seconds

    def _call(self, name: str, *arguments: object) -> None:
        if getattr(self._libc, name)(*arguments) != 0:
            raise OSError(ctypes.get_errno(), name)


class Turns(Coroutine[Any, Any, Any]):
    """A coroutine whose every turn begins with a Python function that does nothing.

    Python takes a signal between two of its own steps: a sample that falls into the event loop, which is C, is taken
    in the function that is next, and would be charged to it. That function is then this one.
    """

    def __init__(self, work: Coroutine[Any, Any, Any]) -> None:
        self._work = work

    def send(self, value: Any) -> Any:
        return self._work.send(value)

    def throw(self, *error: Any) -> Any:
        return self._work.throw(*error)

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._work.__await__()


def task_of_turns(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
    """Return a task, as the event loop's factory of tasks."""
    return asyncio.Task(Turns(work), loop=loop, **options)


def _other_threads() -> Iterator[tuple[int, str, float, FrameType]]:
    """Yield the Python threads but this one: ident, name, seconds of CPU, and where it is."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():  # noqa: SLF001  documented, for debuggers
        # The clock of a thread that has ended must not be asked for: what has a name still runs.
        if ident != threading.get_ident() and ident in names:
            seconds = time.clock_gettime(time.pthread_getcpuclockid(ident))
            yield ident, names[ident].rpartition("_")[0] or names[ident], seconds, frame


def stack_of(frame: FrameType | None) -> Stack:
    """Return where ``frame`` is."""
    names = []
    while frame is not None:
        names.append(f"{frame.f_globals.get('__name__', '?')}:{frame.f_code.co_qualname}")
        frame = frame.f_back
    return tuple(reversed(names))


def collapsed(stacks: Mapping[Stack, float]) -> str:
    """Return a line for each stack, with its microseconds: what every flame graph tool reads."""
    return "".join(f"{';'.join(stack)} {round(spent * 1e6)}\n" for stack, spent in sorted(stacks.items()))


WIDTH: Final = 1600
_ROW: Final = 17
_CHARACTER: Final = 6.7
_NARROWEST: Final = 0.2


class _Node:
    __slots__ = ("inner", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.inner: dict[str, _Node] = {}

    def depth(self) -> int:
        return 1 + max((node.depth() for node in self.inner.values()), default=0)


def svg(stacks: Mapping[Stack, float], title: str, part_of: Callable[[Stack], str]) -> str:
    """Return a flame graph, the roots on top: a box for each function, as wide as its share, coloured by its part."""
    root = _Node()
    for stack, spent in stacks.items():
        _add(root, stack, spent)
    height = (root.depth() + 1) * _ROW
    boxes: list[str] = []
    left = 0.0
    for name, node in sorted(root.inner.items()):
        _draw(boxes, (name,), node, left, root.seconds, part_of)
        left += node.seconds / root.seconds * WIDTH
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">\n'
        "<style>text { font: 11px monospace; pointer-events: none } g:hover rect { stroke: black }</style>\n"
        f'<rect width="{WIDTH}" height="{height}" fill="white" class="page"/>\n'
        f'<text x="4" y="13">{escape(title)}</text>\n'
    )
    return head + "\n".join(boxes) + "\n</svg>\n"


def _add(root: _Node, stack: Stack, seconds: float) -> None:
    if seconds <= 0:
        return
    node = root
    node.seconds += seconds
    for name in stack:
        node = node.inner.setdefault(name, _Node())
        node.seconds += seconds


def _draw(
    boxes: list[str], stack: Stack, node: _Node, left: float, total: float, part_of: Callable[[Stack], str]
) -> None:
    width = node.seconds / total * WIDTH
    if width < _NARROWEST:
        return
    part, top = part_of(stack), len(stack) * _ROW
    said = escape(f"{stack[-1]}: {node.seconds * 1000:.1f} ms, {node.seconds / total:.1%} ({part})")
    label = escape(stack[-1][: int(width / _CHARACTER)]) if width > 3 * _CHARACTER else ""
    hue = zlib.crc32(part.encode()) % 360
    boxes.append(
        f'<g><title>{said}</title><rect x="{left:.2f}" y="{top}" width="{width:.2f}" height="{_ROW - 1}" '
        f'fill="hsl({hue} 65% 75%)"/><text x="{left + 2:.2f}" y="{top + 12}">{label}</text></g>'
    )
    for name, inner in sorted(node.inner.items()):
        _draw(boxes, (*stack, name), inner, left, total, part_of)
        left += inner.seconds / total * WIDTH
