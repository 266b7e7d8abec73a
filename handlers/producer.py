"""The Python client: submit requests, wait for results.

:class:`AsyncProducer` is for code that runs an event loop; :class:`Producer` is the same for code that does not.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import islice
from typing import Any, Final, Self, TypeVar

from handlers.door import Outcome, Refusal
from handlers.opening import open_door
from tasks import keys
from tasks.contracts.request import Request
from tasks.contracts.result import Result
from tasks.contracts.row import Row
from tasks.contracts.strict import parse_strict
from tasks.errors import InvalidInput, NotFound, ResultTimeout, SluiceError, StoreError
from tasks.log import get_logger
from tasks.settings import Settings
from tasks.settings_load import load

log = get_logger()

T = TypeVar("T")
Item = str | Mapping[str, Any] | Request

BATCH: Final = 100
"""Requests that are accepted with one round trip to each store."""
_MOST_ANNOUNCING: Final = 32
"""Batches that may be on their way to the audit and the queues: a store that is away holds up its producers."""
_POLL_SECONDS: Final = (0.02, 0.05, 0.1, 0.2)
_POLL_SECONDS_EACH: Final = 1e-4
"""Looking at many takes the server's time from those who work on them."""


class PartlyRefused(InvalidInput):
    """Some items of a batch were refused; the others are accepted.

    ``ids`` are the accepted ones; ``errors`` are (position in the input, error).
    """

    def __init__(self, ids: list[str], errors: list[tuple[int, SluiceError]]) -> None:
        shown = "; ".join(f"item {position}: {error}" for position, error in errors[:10])
        more = f"; and {len(errors) - 10} more" if len(errors) > 10 else ""
        super().__init__(f"{len(errors)} refused, {len(ids)} accepted: {shown}{more}")
        self.ids = ids
        self.errors = errors


def to_request(item: Item, *, tenant: str = "default") -> Request:
    """Return ``item`` as a validated request: a text, a map of the request's fields, or a request.

    Raises:
        InvalidInput: names the field and the mend.
    """
    if isinstance(item, Request):
        return item
    fields = {"text": item} if isinstance(item, str) else dict(item)
    return parse_strict(Request, {"tenant": tenant, **fields})


class AsyncProducer:
    """Submits to the queues and reads the results that lie in object storage. Use it with ``async with``.

    ``identity`` names the key that signs the grants, and so who asks with which roles; by default ``grants.identity``.
    """

    def __init__(
        self, settings: Settings | None = None, *, identity: str | None = None, tenant: str = "default"
    ) -> None:
        self._settings = settings or load()
        self._identity = identity
        self._tenant = tenant
        self._stack = AsyncExitStack()
        self._announcing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Open the connections.

        Raises:
            NotReady: there are no keys to sign with; the message says how to make them.
        """
        opened = await self._stack.enter_async_context(open_door(self._settings, "producer", identity=self._identity))
        self._door, self._stores, self._caller = opened.door, opened.stores, opened.gate.caller()
        self._opened = opened
        self._stack.push_async_callback(self._settle)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write the audit and close the connections."""
        await self._stack.aclose()

    async def submit(self, text: str, **fields: Any) -> str:
        """Submit one request; return its id as soon as it is durable.

        ``fields`` are those of :class:`tasks.contracts.request.Request`.

        Raises:
            InvalidInput: names the field and the mend.
            Conflict: the id is in use for a request with another body.
            Denied: the roles of the caller do not allow it.
            StoreError: it may or may not have been accepted; submitting it again under the same id is safe.
        """
        [outcome] = await self.accept([to_request({"text": text, **fields}, tenant=self._tenant)])
        if isinstance(outcome, Refusal):
            raise outcome
        return outcome.id

    async def submit_many(self, items: Iterable[Item]) -> list[str]:
        """Submit texts, maps or requests; return their ids in order, once all are on their queue.

        Raises:
            PartlyRefused: some were not valid or in conflict; it names them, and all others are accepted.
        """
        ids: list[str] = []
        errors: list[tuple[int, SluiceError]] = []
        numbered = enumerate(items)
        while chunk := list(islice(numbered, BATCH)):
            valid: list[tuple[int, Request]] = []
            for position, item in chunk:
                try:
                    valid.append((position, to_request(item, tenant=self._tenant)))
                except InvalidInput as error:
                    errors.append((position, error))
            outcomes = await self.accept([request for _, request in valid])
            for (position, _), outcome in zip(valid, outcomes, strict=True):
                if isinstance(outcome, Refusal):
                    errors.append((position, outcome))
                else:
                    ids.append(outcome.id)
        await self._settle()
        if errors:
            raise PartlyRefused(ids, errors)
        return ids

    async def accept(self, requests: Sequence[Request]) -> list[Outcome]:
        """Submit validated requests; return one outcome for each.

        They are durable when this returns. Their audit records and queue messages follow, many at a time; closing the
        producer waits for them, and where it could not the sweeper sees to them.
        """
        outcomes, admitted = await self._door.admit(requests, caller=self._caller)
        if admitted:
            while len(self._announcing) >= _MOST_ANNOUNCING:
                await asyncio.wait(self._announcing, return_when=asyncio.FIRST_COMPLETED)
            task = asyncio.create_task(self._announce(admitted), name="announce")
            self._announcing.add(task)
            task.add_done_callback(self._announcing.discard)
        return outcomes

    async def _announce(self, rows: Sequence[Row]) -> None:
        try:
            await self._door.announce(rows, caller=self._caller)
        except StoreError as error:
            log.warning("accepted and not announced, the sweeper will", requests=len(rows), error=str(error))

    async def _settle(self) -> None:
        if self._announcing:
            await asyncio.wait(self._announcing)

    async def result(self, request_id: str, timeout: float | None = None, *, tenant: str | None = None) -> Result:
        """Wait for the result of a request's newest revision, at most ``timeout`` seconds.

        What was escalated is done, until somebody answers: then a revision is open, and its result is waited for.

        Raises:
            ResultTimeout: the request is not done yet.
            NotFound: there is no such request.
        """
        async for result in self.results([request_id], timeout, tenant=tenant):
            return result
        raise NotFound(request_id)

    async def cancel(self, request_id: str, *, tenant: str | None = None) -> Result:
        """Cancel a request, and return its result; see :meth:`handlers.desk.Desk.cancel`.

        Raises:
            Conflict: it has ended otherwise.
            NotFound: there is no such request.
            Denied: the roles of the caller do not allow it.
            StoreError: it may or may not be cancelled; cancelling it again is safe.
        """
        from handlers.desk import make_desk

        desk = make_desk(self._settings, self._opened)
        return await desk.cancel(tenant or self._tenant, request_id, caller=self._caller)

    async def results(
        self,
        ids: Iterable[str],
        timeout: float | None = None,
        *,
        tenant: str | None = None,
    ) -> AsyncIterator[Result]:
        """Yield the results of ``ids`` as they finish, within ``timeout`` seconds for all.

        Raises:
            ResultTimeout: names how many are not done yet.
            NotFound: names an id that was never submitted.
        """
        async for result in self.follow([(tenant or self._tenant, request_id) for request_id in ids], timeout):
            yield result

    async def follow(
        self,
        requests: Iterable[tuple[str, str]],
        timeout: float | None = None,
    ) -> AsyncIterator[Result]:
        """Yield the results of (tenant, id) as they finish; see :meth:`results`."""
        waiting = list(dict.fromkeys(requests))
        end = None if timeout is None else time.monotonic() + timeout
        pauses = iter(_POLL_SECONDS)
        pause = _POLL_SECONDS[0]
        while waiting:
            flags = await self._stores.register.are_open([keys.ref(*request) for request in waiting])
            finished = [request for request, is_open in zip(waiting, flags, strict=True) if not is_open]
            waiting = [request for request, is_open in zip(waiting, flags, strict=True) if is_open]
            for request in finished:
                yield await self._finished(*request)
            if waiting:
                if end is not None and time.monotonic() >= end:
                    first = ", ".join(request_id for _, request_id in waiting[:3])
                    more = f" and {len(waiting) - 3} more" if len(waiting) > 3 else ""
                    raise ResultTimeout(f"not done within {timeout:g} s: {first}{more}")
                pause = next(pauses, pause)
                await asyncio.sleep(max(pause, len(waiting) * _POLL_SECONDS_EACH))

    async def _finished(self, tenant: str, request_id: str) -> Result:
        result = await self._stores.results.newest(tenant, request_id)
        if result is None:
            raise NotFound(f"no request {request_id!r} of tenant {tenant!r}")
        return result


class Producer:
    """The blocking client. Use it with ``with``; safe to share between threads."""

    def __init__(
        self, settings: Settings | None = None, *, identity: str | None = None, tenant: str = "default"
    ) -> None:
        self._async = AsyncProducer(settings, identity=identity, tenant=tenant)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="producer", daemon=True)

    def __enter__(self) -> Self:
        """Open the connections."""
        self._thread.start()
        try:
            self._call(self._async.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Write the audit and close the connections."""
        try:
            self._call(self._async.__aexit__())
        finally:
            self._stop()

    def submit(self, text: str, **fields: Any) -> str:
        """See :meth:`AsyncProducer.submit`."""
        return self._call(self._async.submit(text, **fields))

    def submit_many(self, items: Iterable[Item]) -> list[str]:
        """See :meth:`AsyncProducer.submit_many`."""
        return self._call(self._async.submit_many(items))

    def result(self, request_id: str, timeout: float | None = None, *, tenant: str | None = None) -> Result:
        """See :meth:`AsyncProducer.result`."""
        return self._call(self._async.result(request_id, timeout, tenant=tenant))

    def cancel(self, request_id: str, *, tenant: str | None = None) -> Result:
        """See :meth:`AsyncProducer.cancel`."""
        return self._call(self._async.cancel(request_id, tenant=tenant))

    def results(
        self, ids: Iterable[str], timeout: float | None = None, *, tenant: str | None = None
    ) -> Iterator[Result]:
        """See :meth:`AsyncProducer.results`."""
        found = self._async.results(ids, timeout, tenant=tenant)

        async def following() -> Result | None:
            return await anext(found, None)

        while (result := self._call(following())) is not None:
            yield result

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
