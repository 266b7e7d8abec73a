"""What both registers promise when a command is sent twice, and when a message is gone or only seems to be."""

from __future__ import annotations

from tasks.contracts.row import Stage
from tasks.stores.register import Begun, Due, Handover, Register, Verdict
from tests.support import build
from tests.support.build import NOW, ref
from tests.support.register_contract import begin, published


class RetryContract:
    async def test_beginning_twice_with_one_holder_is_one_attempt(self, register: Register) -> None:
        row = await published(register, build.row("r1"))
        assert await begin(register, row, "h1") == Begun(Verdict.STARTED, 1)
        assert await begin(register, row, "h1") == Begun(Verdict.STARTED, 1)
        assert await begin(register, row, "h2") == Begun(Verdict.HELD, 0)

    async def test_an_exhausted_attempt_is_exhausted_when_asked_again(self, register: Register) -> None:
        row = await published(register, build.row("r1"))
        assert await begin(register, row, "h1", attempts=0) == Begun(Verdict.EXHAUSTED, 1)
        assert await begin(register, row, "h1", attempts=0) == Begun(Verdict.EXHAUSTED, 1)

    async def test_advancing_twice_is_advancing_once(self, register: Register) -> None:
        row = await published(register, build.row("r1"))
        await begin(register, row, "h1")
        handover = Handover(Stage.WORK, "agents.responder", "{}")
        first = await register.advance(ref(row), "h1", handover, due=NOW)
        assert await register.advance(ref(row), "h1", handover, due=NOW) == first

    async def test_postponing_twice_gives_one_attempt_back(self, register: Register) -> None:
        row = await published(register, build.row("r1"))
        await begin(register, row, "h1")
        for _ in range(2):
            await register.postpone(ref(row), "h1", due=NOW, counted=False)
        standing = await register.get(ref(row))
        assert standing is not None
        assert (standing.attempts, standing.generation) == (0, 1)

    async def test_seizing_twice_with_one_holder_is_one_seizure(self, register: Register) -> None:
        row = build.row("r1")
        await register.open([row], due=NOW)
        for _ in range(2):
            assert await register.seize(ref(row), "h1", now=NOW, lease=15)
        assert not await register.seize(ref(row), "h2", now=NOW, lease=15)

    async def test_losses_are_counted_until_somebody_begins(self, register: Register) -> None:
        row = await published(register, build.row("r1"))
        for losses in (1, 2):
            taken = await register.reclaim(ref(row), Due.LOST, before=NOW + losses, due=NOW + 10)
            assert taken is not None
            assert taken.losses == losses
            await register.published([(ref(row), taken.queue, taken.generation)], now=NOW + losses)
        await begin(register, row)
        standing = await register.get(ref(row))
        assert standing is not None
        assert standing.losses == 0

    async def test_a_message_that_was_seen_is_not_lost(self, register: Register) -> None:
        row = await published(register, build.row("r1"), now=NOW)
        await register.seen(ref(row), now=NOW + 50)
        assert await register.lost(row.queue, before=NOW + 49, limit=10) == []
        assert await register.lost(row.queue, before=NOW + 50, limit=10) == [ref(row)]

    async def test_seeing_what_is_not_queued_changes_nothing(self, register: Register) -> None:
        row = await published(register, build.row("r1"))
        await begin(register, row)
        before = await register.get(ref(row))
        await register.seen(ref(row), now=NOW + 50)
        await register.seen("default/none", now=NOW + 50)
        assert await register.get(ref(row)) == before
