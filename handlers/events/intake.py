"""What becomes of events: each request in them once, however often and in whatever order they are delivered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from handlers.door import Accepted, Outcome
from handlers.events import documents, notices
from handlers.events.envelope import derived_id, read_request
from tasks import keys
from tasks.contracts.base import canonical
from tasks.contracts.request import Request
from tasks.errors import AlreadyExists, InvalidInput, QuotaExceeded, SluiceError
from tasks.log import get_logger
from tasks.stores.objects import ObjectStore

log = get_logger()

BATCH: Final = 100
"""Requests that are accepted with one round trip to each store."""
BATCH_BYTES: Final = 4 * 1024 * 1024
"""Bytes of text after which a batch is accepted: long texts must not add up in memory."""
MANIFEST_LINES: Final = 10_000
"""Lines in one part of a manifest: that bounds the memory that an object of any size takes."""

Accept = Callable[[Sequence[Request]], Awaitable[list[Outcome]]]
"""The door: one outcome for each request, in order."""


class DeadLetters(Protocol):
    """Where messages go that no retry will mend."""

    async def put(self, body: str, *, message_id: str, reason: str) -> None:
        """Keep ``body`` with the ``reason`` why it is no request; durable when this returns."""


class Taken(NamedTuple):
    """What became of an object: how many requests were accepted, were known already, and were refused."""

    accepted: int = 0
    same: int = 0
    refused: int = 0


class Delivery(NamedTuple):
    """One message of a queue: its id there, and its body."""

    message_id: str
    body: str


async def take_object(
    created: notices.Created, *, tenant: str | None, bucket: ObjectStore, manifests: ObjectStore, accept: Accept
) -> Taken:
    """Accept what the object asks for, and write its manifest: the id of each line's request, or what is wrong with it.

    Both are idempotent: delivered again, nothing is accepted twice, and the manifest stays as it was.

    Raises:
        QuotaExceeded: the tenant has as much as it may; deliver the event again later.
        StoreError: deliver the event again.
    """
    origin = derived_id(created.bucket, created.key, created.version)
    lines = documents.read_lines(created.key, bucket.read(created.key), origin=origin, tenant=tenant)
    report = _Manifest(manifests, created, origin)
    taken = Taken()
    try:
        async for batch in _batches(lines):
            taken = await _take_lines(batch, accept, report, taken)
    except InvalidInput as error:  # the rest cannot be read, however often it is delivered
        await report.add({"error": {"code": error.code, "message": str(error)}})
        taken = taken._replace(refused=taken.refused + 1)
    await report.close()
    manifest = keys.manifest(origin, 1)
    log.info("object taken", bucket=created.bucket, key=created.key, manifest=manifest, **taken._asdict())
    return taken


async def take_messages(
    deliveries: Iterable[Delivery], *, tenant: str | None, accept: Accept, dead_letters: DeadLetters
) -> list[str]:
    """Accept what the messages ask for; return the ids of those to be delivered again.

    What no retry will mend is a dead letter, with the reason, and so does not come back.
    """
    requests: list[tuple[Delivery, Request]] = []
    hopeless: list[tuple[Delivery, SluiceError]] = []
    for delivery in deliveries:
        try:
            fallback = derived_id("message", delivery.message_id)
            requests.append((delivery, read_request(delivery.body, tenant=tenant, fallback_id=fallback)))
        except InvalidInput as error:
            hopeless.append((delivery, error))
    outcomes: list[Outcome | InvalidInput | None]
    try:
        outcomes = [*await _each([request for _, request in requests], accept)]
    except Exception as error:  # noqa: BLE001  the queue delivers them again
        log.warning("to be delivered again", messages=len(requests), error=str(error))
        outcomes = [None] * len(requests)
    again = []
    for (delivery, _), outcome in zip(requests, outcomes, strict=True):
        if outcome is None or isinstance(outcome, QuotaExceeded):
            again.append(delivery.message_id)
        elif not isinstance(outcome, Accepted):
            hopeless.append((delivery, outcome))
    kept = await asyncio.gather(*(_bury(letter, error, dead_letters) for letter, error in hopeless))
    return again + [message_id for message_id in kept if message_id is not None]


async def _each(requests: Sequence[Request], accept: Accept) -> list[Outcome | InvalidInput]:
    """Accept ``requests`` together; where the door wants none of them for one's fault, each alone."""
    try:
        return [*await accept(requests)] if requests else []
    except InvalidInput as error:
        if len(requests) == 1:
            return [error]
    return [outcome for request in requests for outcome in await _each([request], accept)]


async def _bury(delivery: Delivery, error: SluiceError, dead_letters: DeadLetters) -> str | None:
    """Make a dead letter of ``delivery``; return its id where that failed: then it must come back."""
    try:
        await dead_letters.put(delivery.body, message_id=delivery.message_id, reason=f"{error.code}: {error}")
    except Exception as failure:  # noqa: BLE001  the queue delivers it again
        log.warning("not a dead letter yet", message_id=delivery.message_id, error=str(failure))
        return delivery.message_id
    return None


async def _take_lines(batch: list[documents.Line], accept: Accept, report: _Manifest, taken: Taken) -> Taken:
    requests = [line.found for line in batch if isinstance(line.found, Request)]
    outcomes = iter(await _each(requests, accept))
    accepted, same, refused = taken
    for line in batch:
        outcome = next(outcomes) if isinstance(line.found, Request) else line.found
        if isinstance(outcome, QuotaExceeded):
            raise outcome
        if isinstance(outcome, Accepted):
            is_new = outcome.acceptance == "new"
            accepted, same = accepted + is_new, same + (not is_new)
            await report.add({"line": line.number, "id": outcome.id})
        else:
            refused += 1
            error = {"code": outcome.code, "message": str(outcome)}
            named = {"id": line.found.id} if isinstance(line.found, Request) else {}
            await report.add({"line": line.number, **named, "error": error})
    return Taken(accepted, same, refused)


async def _batches(lines: AsyncIterator[documents.Line]) -> AsyncIterator[list[documents.Line]]:
    held: list[documents.Line] = []
    size = 0
    async for line in lines:
        held.append(line)
        size += len(line.found.text) if isinstance(line.found, Request) else 0
        if len(held) == BATCH or size >= BATCH_BYTES:
            yield held
            held, size = [], 0
    if held:
        yield held


class _Manifest:
    """Writes JSON lines in parts, each once."""

    def __init__(self, store: ObjectStore, created: notices.Created, origin: str) -> None:
        self._store = store
        self._head = {"bucket": created.bucket, "key": created.key, "version": created.version}
        self._origin = origin
        self._lines: list[bytes] = []
        self._part = 0

    async def add(self, line: dict[str, Any]) -> None:
        """Note what became of a line."""
        self._lines.append(canonical(line))
        if len(self._lines) >= MANIFEST_LINES:
            await self._write()

    async def close(self) -> None:
        """Write the last part; an object without a line has one with nothing but its head."""
        if self._lines or self._part == 0:
            await self._write()

    async def _write(self) -> None:
        self._part += 1
        data = b"\n".join([canonical(self._head), *self._lines, b""])
        self._lines.clear()
        # There already: from an earlier delivery, when what is known now was new.
        with contextlib.suppress(AlreadyExists):
            await self._store.create(keys.manifest(self._origin, self._part), data)
