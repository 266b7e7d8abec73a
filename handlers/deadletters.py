"""What a person does with dead letters: list, read, redrive, drop.

Three boxes hold them: requests that used up their attempts, messages that no door wrote, events that are no request.
Only the first kind can be redriven. Whoever may redrive may also read and drop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Final, TypeVar

from msgspec import Struct

from handlers.acting import AUDIT_SECONDS, Acting
from handlers.letter import DeadLetter, Standing, read
from handlers.reopen import Reopener
from tasks import keys
from tasks.access.policy import Act
from tasks.contracts.audit import Action
from tasks.contracts.message import Message
from tasks.contracts.result import Status
from tasks.errors import (
    CallbackFailed,
    Denied,
    ForgedMessage,
    IntegrityError,
    InvalidInput,
    MalformedMessage,
    SluiceError,
    StoreError,
)
from tasks.stores.bodies import BodyStore, demand_same, to_request
from tasks.stores.broker import Broker
from tasks.stores.register import Register
from tasks.stores.relay import reference_of
from tasks.stores.results import ResultStore

T = TypeVar("T")
R = TypeVar("R")

PAGE: Final = 500
"""Letters that are looked at together."""
_AT_ONCE: Final = 32

Progress = Callable[[int], None]
"""Is told how many letters were looked at."""


class Box(Struct, frozen=True):
    """A queue of letters, and where it lies."""

    broker: Broker
    queue: str


class Wanted(Struct, frozen=True):
    """Which letters: None is any. ``ids`` are of requests or of letters; ``reason`` is part of code or sentence."""

    tenant: str | None = None
    pool: str | None = None
    reason: str | None = None
    ids: tuple[str, ...] = ()
    boxes: tuple[str, ...] = ()

    def may_fit(self, letter: DeadLetter) -> bool:
        """Tell whether ``letter`` fits by what stands in it."""
        named = not self.ids or letter.request_id in self.ids or letter.id in self.ids
        return named and self.tenant in (None, letter.tenant) and self.pool in (None, letter.pool)

    def fits(self, letter: DeadLetter) -> bool:
        """Tell whether ``letter``, whose reason was looked up, fits."""
        told = f"{letter.code}: {letter.reason}".lower()
        return self.reason is None or self.reason.lower() in told


class Done(Struct, frozen=True):
    """What became of one letter: ``revision`` is the one that is open now, ``why`` says why it stays."""

    letter: DeadLetter
    revision: int | None = None
    fresh: bool = False
    why: str = ""
    error: SluiceError | None = None


class DeadLetters:
    """The dead letters that ``acting`` may handle. ``boxes`` by name, in the order in which they are looked through."""

    def __init__(
        self,
        acting: Acting,
        boxes: Mapping[str, Box],
        *,
        register: Register,
        results: ResultStore,
        bodies: BodyStore,
        reopener: Reopener,
    ) -> None:
        self._acting = acting
        self._boxes = boxes
        self._register = register
        self._results = results
        self._bodies = bodies
        self._reopener = reopener
        self._gone: set[str] = set()
        self.hidden = 0

    async def count(self, wanted: Wanted) -> int:
        """Return about how many letters there are to look at."""
        boxes = [box for name, box in self._boxes.items() if name in (wanted.boxes or self._boxes)]
        return sum(await asyncio.gather(*(box.broker.length(box.queue) for box in boxes)))

    async def find(self, wanted: Wanted, looked: Progress = lambda _: None) -> AsyncGenerator[list[DeadLetter], None]:
        """Yield the letters that are ``wanted``, box by box, the oldest first, some at a time.

        Where neither tenant nor ids are named, those that the caller may not handle are left out, and ``hidden``
        counts them. What is found by its id says no when something is done to it.

        Raises:
            Denied: the caller may not handle those of the tenant that is named; that is on record.
            InvalidInput: a box is not there.
        """
        if wanted.tenant is not None:
            await self._acting.permit(Act.DLQ_REDRIVE, wanted.tenant)
        if absent := set(wanted.boxes) - set(self._boxes):
            raise InvalidInput(f"box: {', '.join(absent)} is not there: set events.dead_letters")
        seen = 0
        for name in wanted.boxes or tuple(self._boxes):
            async with aclosing(self._pages(name)) as pages:
                async for page in pages:
                    fitting = [letter for letter in page if wanted.may_fit(letter)]
                    if not wanted.ids:
                        fitting = [letter for letter in fitting if self._may_see(letter)]
                    stood = await _each(fitting, self._stood)
                    seen += len(page)
                    looked(seen)
                    if found := [letter for letter in stood if wanted.fits(letter)]:
                        yield found

    async def show(self, letter: DeadLetter) -> str | None:
        """Return the text that was asked, None where it is not there; it goes on record that it was read.

        Raises:
            Denied: the caller may not read it.
        """
        await self._acting.permit(Act.DLQ_REDRIVE, letter.owner)
        await self._acting.record(
            Action.DEAD_LETTER_READ, letter.owner, letter.box, request_id=letter.asked, digest=letter.digest
        )
        if letter.message is None or letter.standing is Standing.REFUSED:
            return None
        try:
            return await self._text(letter.message)
        except SluiceError:
            return None

    async def redrive(self, letters: Sequence[DeadLetter], *, dry: bool = False) -> list[Done]:
        """Open the next revision of each request, and take its letter away; what cannot be redriven stays.

        Turns of one session keep their order. Done twice, or by two at once, each revision is opened once. With ``dry``
        nothing is written.
        """
        lines: dict[tuple[str, str], list[DeadLetter]] = {}
        for letter in letters:
            line = letter.message.session_id if letter.message and letter.message.session_id else letter.digest
            lines.setdefault((letter.tenant, line), []).append(letter)

        async def along(line: list[DeadLetter]) -> list[Done]:
            return [await self._redrive(letter, dry=dry) for letter in line]

        done = await _each(list(lines.values()), along)
        return [one for line in done for one in line]

    async def drop(self, letters: Sequence[DeadLetter], *, dry: bool = False) -> list[Done]:
        """Take ``letters`` away for good, once that is on record with the SHA-256 of each. Results stay."""
        allowed: list[DeadLetter] = []
        done: list[Done] = []
        for letter in letters:
            try:
                await self._acting.permit(Act.DLQ_REDRIVE, letter.owner)
                allowed.append(letter)
            except Denied as error:
                done.append(Done(letter, why=str(error), error=error))
        if allowed and not dry:
            event = self._acting.event
            dropped = [
                event(
                    Action.DEAD_LETTER_DROPPED,
                    letter.owner,
                    letter.box,
                    request_id=letter.asked,
                    reason=letter.code,
                    digest=letter.digest,
                    bytes=len(letter.data),
                )
                for letter in allowed
            ]
            await self._acting.audit.commit(dropped, timeout=AUDIT_SECONDS)
            await self._remove(allowed)
        return [*done, *(Done(letter, fresh=True) for letter in allowed)]

    async def _redrive(self, letter: DeadLetter, *, dry: bool) -> Done:
        try:
            await self._acting.permit(Act.DLQ_REDRIVE, letter.owner)
            message = await self._redrivable(letter)
            if message.delivery:
                return await self._resend(letter, message, dry=dry)
            reopening = await self._reopener.prepare(message, Action.REQUEST_REDRIVEN, letter.box)
            if dry:
                return Done(letter, revision=reopening.revision, fresh=reopening.row is not None)
            fresh = await self._reopener.open(reopening, letter=letter.digest, revision_before=message.revision)
            # Whoever dies here leaves a letter whose next revision is there: a redrive of it takes it away.
            await self._remove([letter])
            return Done(letter, revision=reopening.revision, fresh=fresh)
        except SluiceError as error:
            return Done(letter, why=str(error), error=error)

    async def _resend(self, letter: DeadLetter, message: Message, *, dry: bool) -> Done:
        """Have a callback called again; it is no revision of its own."""
        if dry:
            return Done(letter, revision=message.revision, fresh=letter.standing is Standing.DEAD)
        fresh = await self._reopener.resend(message, letter.box, letter=letter.digest)
        await self._remove([letter])
        return Done(letter, revision=message.revision, fresh=fresh)

    async def _redrivable(self, letter: DeadLetter) -> Message:
        """Return the message to be opened again; raise an error that says why it cannot be."""
        message = letter.message
        if letter.standing is Standing.EVENT:
            raise InvalidInput(f"{letter.id}: is no request: mend it, and send it to its queue again")
        if message is None or letter.standing is Standing.REFUSED:
            raise InvalidInput(f"{letter.id}: no door wrote it ({letter.reason}): it cannot be redriven, drop it")
        result = await self._results.get(message.tenant, message.id, message.revision)
        if result is not None and result.status is not Status.FAILED and not message.delivery:
            raise InvalidInput(f"{message.id}: has ended as {result.status.value}: there is nothing to redrive")
        try:
            await self._text(message)
        except ForgedMessage as error:
            raise IntegrityError(str(error)) from error
        return message

    async def _text(self, message: Message) -> str:
        """Return what was asked; raise where its body is gone, or is not the granted one."""
        body = await self._bodies.unpack(message)
        if body is None:
            raise StoreError(f"{message.id}: its body is not in object storage any more")
        self._acting.gate.verify_body(message, body)
        asked = to_request(message, body)
        demand_same(message, asked)
        return asked.text

    def _may_see(self, letter: DeadLetter) -> bool:
        try:
            self._acting.gate.permit(self._acting.caller, Act.DLQ_REDRIVE, letter.owner)
        except Denied:
            self.hidden += 1
            return False
        return True

    async def _stood(self, letter: DeadLetter) -> DeadLetter:
        """Return ``letter`` with what has become of its request."""
        message = letter.message
        if message is None:
            return letter
        try:
            self._acting.gate.verify(message)
        except MalformedMessage as error:
            return letter.changed(code="grant_forged", reason=str(error), standing=Standing.REFUSED)
        if message.delivery:
            return await self._untold(letter, message)
        result = await self._results.get(message.tenant, message.id, message.revision, message.step)
        if result is None:
            return letter
        ended = letter.changed(
            code=result.error.code if result.error else result.status.value,
            reason=result.error.message if result.error else "",
            attempts=result.error.attempts if result.error else None,
            standing=Standing.ENDED,
        )
        return ended if result.status is not Status.FAILED else await self._failed(ended, message)

    async def _untold(self, letter: DeadLetter, message: Message) -> DeadLetter:
        """Return the ``letter`` of a callback that was given up, or of one that is on its way again."""
        row = await self._register.get(reference_of(message))
        return letter.changed(code=CallbackFailed.code, standing=Standing.REDRIVEN if row else Standing.DEAD)

    async def _failed(self, letter: DeadLetter, message: Message) -> DeadLetter:
        row = await self._register.get(keys.ref(message.tenant, message.id))
        is_later = row is not None and row.revision > message.revision
        if is_later or await self._results.get(message.tenant, message.id, message.revision + 1):
            return letter.changed(standing=Standing.REDRIVEN)
        return letter.changed(standing=Standing.DEAD)

    async def _pages(self, name: str) -> AsyncGenerator[list[DeadLetter], None]:
        """Yield the letters of a box; what is not taken away meanwhile is left there at the end."""
        box = self._boxes[name]
        kept: dict[str, None] = {}
        seen: set[str] = set()
        try:
            while page := await box.broker.letters(box.queue, PAGE, skip=len(kept)):
                kept |= dict.fromkeys(letter.tag for letter in page)
                found = [read(name, letter) for letter in page]
                fresh = [letter for letter in found if letter.digest not in seen]
                if not fresh:
                    break  # where it took long, what was shown first is in sight again
                seen.update(letter.digest for letter in fresh)
                yield fresh
                kept = {tag: None for tag in kept if tag not in self._gone}
        finally:
            await box.broker.leave(box.queue, [tag for tag in kept if tag not in self._gone])

    async def _remove(self, letters: Iterable[DeadLetter]) -> None:
        for name, box in self._boxes.items():
            tags = [letter.tag for letter in letters if letter.box == name]
            if tags:
                await box.broker.remove(box.queue, tags)
                self._gone.update(tags)


async def _each(items: Sequence[T], work: Callable[[T], Awaitable[R]]) -> list[R]:
    """Do ``work`` on each of ``items``, some at once; return what came out, in order."""
    free = asyncio.Semaphore(_AT_ONCE)

    async def one(item: T) -> R:
        async with free:
            return await work(item)

    return await asyncio.gather(*map(one, items))
