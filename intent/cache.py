"""The loaded models of a process: each once, the least recently used ones given up where memory is short."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from tasks.errors import NotReady
from tasks.log import get_logger

log = get_logger()


class Closable(Protocol):
    """What is given up once nobody uses it."""

    async def close(self) -> None:
        """Answer what waits, and let go."""


K = TypeVar("K", bound=Hashable)
M = TypeVar("M", bound=Closable)
R = TypeVar("R")


class _Slot(Generic[M]):
    """A model that is loaded or being loaded; ``users`` count those who wait for it or use it now."""

    __slots__ = ("cost", "loading", "model", "unused", "users")

    def __init__(self) -> None:
        self.loading: asyncio.Task[None]
        self.model: M | None = None
        self.cost = 0
        self.users = 0
        self.unused: asyncio.Event | None = None
        """Where it is given up: set when nobody uses it any more."""


class ModelCache(Generic[K, M]):
    """Models by key, bounded by the memory that they are said to take. Use it from one event loop only.

    What is in use is never given up: where all of it is, the bound is exceeded.
    """

    def __init__(self, load: Callable[[K], Awaitable[tuple[M, int]]], limit: int) -> None:
        """Keep at most ``limit`` bytes. ``load`` returns a model and what it takes, in bytes."""
        self._load = load
        self._limit = limit
        self._slots: OrderedDict[K, _Slot[M]] = OrderedDict()
        self._held: Counter[K] = Counter()
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def loaded(self) -> tuple[K, ...]:
        """Return the keys of what is loaded, the least recently used first."""
        return tuple(key for key, slot in self._slots.items() if slot.model)

    @property
    def cost(self) -> int:
        """Return how many bytes the loaded models are said to take."""
        return sum(slot.cost for slot in self._slots.values())

    def __contains__(self, key: object) -> bool:
        slot = self._slots.get(key)  # type: ignore[arg-type]  # whatever it is, it can be looked for
        return slot is not None and slot.model is not None

    def peek(self, key: K) -> M | None:
        """Return a loaded model, without counting that as a use."""
        slot = self._slots.get(key)
        return slot.model if slot else None

    async def use(self, key: K, work: Callable[[M], Awaitable[R]]) -> R:
        """Return what ``work`` makes of the model, which is loaded where need be and stays until that is done.

        Raises:
            NotReady: the cache is closed.
            Exception: whatever loading or ``work`` raised.
        """
        slot = self._slots.get(key) or self._begin(key)
        slot.users += 1
        self._slots.move_to_end(key)
        try:
            return await work(slot.model or await self._waited_for(key, slot))
        finally:
            slot.users -= 1
            if not slot.users:
                if slot.unused:
                    slot.unused.set()
                self._trim()

    async def preload(self, keys: Iterable[K]) -> None:
        """Load what is not loaded yet, one after the other; raises what loading raised."""
        for key in keys:
            await self.use(key, _nothing)

    @contextlib.contextmanager
    def holding(self, keys: Collection[K]) -> Iterator[None]:
        """Give none of ``keys`` up inside the block, used or not."""
        self._held.update(keys)
        try:
            yield
        finally:
            self._held -= Counter(keys)

    async def keep(self, keys: Collection[K]) -> None:
        """Give up everything else; who uses it has an answer before this returns."""
        gone = [self._drop(key) for key in list(self._slots) if key not in keys]
        await asyncio.gather(*gone, return_exceptions=True)

    async def close(self) -> None:
        """Give up everything, and load nothing more."""
        self._closed = True
        for slot in self._slots.values():
            slot.loading.cancel()
        await self.keep(())
        while self._closing:
            await asyncio.gather(*self._closing, return_exceptions=True)

    def _begin(self, key: K) -> _Slot[M]:
        if self._closed:
            raise NotReady("the model cache is closed")
        slot = self._slots[key] = _Slot[M]()
        slot.loading = asyncio.create_task(self._fill(key, slot), name=f"load {key}")
        # Where everybody who waited has gone, nobody else looks at how it ended.
        slot.loading.add_done_callback(lambda task: task.cancelled() or task.exception())
        return slot

    async def _fill(self, key: K, slot: _Slot[M]) -> None:
        try:
            slot.model, slot.cost = await self._load(key)
        except BaseException:
            if self._slots.get(key) is slot:  # the next one who asks tries again
                del self._slots[key]
            raise
        self._trim()

    async def _waited_for(self, key: K, slot: _Slot[M]) -> M:
        try:
            await asyncio.shield(slot.loading)
        except asyncio.CancelledError:
            if not slot.loading.cancelled():
                raise
            raise NotReady(f"{key}: was given up while it was being loaded") from None
        assert slot.model is not None  # noqa: S101  set before the task is done
        return slot.model

    def _trim(self) -> None:
        over = self.cost - self._limit
        for key, slot in list(self._slots.items())[:-1]:  # what was asked for last stays, however great it is
            if over <= 0:
                return
            if slot.model and not slot.users and key not in self._held:
                over -= slot.cost
                log.info("model given up", model=str(key), megabytes=round(slot.cost / 2**20))
                self._drop(key)

    def _drop(self, key: K) -> asyncio.Task[None]:
        task = asyncio.create_task(_give_up(self._slots.pop(key)), name=f"close {key}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task


async def _nothing(_: object) -> None:
    return


async def _give_up(slot: _Slot[M]) -> None:
    if slot.users:
        slot.unused = asyncio.Event()
        await slot.unused.wait()
    slot.loading.cancel()
    if slot.model:
        await slot.model.close()
