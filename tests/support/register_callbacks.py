"""What both registers promise of callbacks: rows of their own, opened once, that count as nobody's request."""

from __future__ import annotations

from tasks import keys
from tasks.contracts.row import Row, Stage
from tasks.stores.register import Begun, Limits, Opened, Register, Verdict
from tests.support import build
from tests.support.build import NOW, ref
from tests.support.register_contract import begin


def callback(request_id: str = "r1", revision: int = 1) -> Row:
    return build.row(
        keys.delivery_id(request_id, revision), stage=Stage.DELIVER, queue=keys.CALLBACK_POOL, revision=revision
    )


class CallbackContract:
    async def test_it_is_opened_once_and_waits_to_be_published(self, register: Register) -> None:
        row = callback()
        assert await register.outbox(row, due=NOW + 10)
        assert not await register.outbox(row.changed(message='{"other":true}'), due=NOW)
        assert await register.get(ref(row)) == row
        assert await register.unpublished(now=NOW + 9, limit=10) == []
        assert await register.unpublished(now=NOW + 10, limit=10) == [ref(row)]

    async def test_each_revision_has_its_own(self, register: Register) -> None:
        assert await register.outbox(callback(), due=NOW)
        assert await register.outbox(callback(revision=2), due=NOW)

    async def test_what_is_over_is_opened_again_only_where_that_is_asked(self, register: Register) -> None:
        row = callback()
        await register.outbox(row, due=NOW)
        await register.clear(ref(row), revision=1, digest=row.digest, now=NOW, remember=60)
        assert not await register.outbox(row, due=NOW)
        assert (await begin(register, row)).verdict is Verdict.FINISHED
        assert await register.outbox(row, due=NOW, again=True)
        assert await begin(register, row) == Begun(Verdict.STARTED, 1)

    async def test_it_takes_no_slot_and_is_no_open_request(self, register: Register) -> None:
        row = callback()
        await register.outbox(row, due=NOW)
        await begin(register, row)
        assert await register.load("default") == {"open": 0, "admitted": 0, "throttled": 0}
        one = Limits(most_open=1, slots=1)
        assert await register.open([build.row("r2")], due=NOW, limits=[one]) == [Opened.CREATED]

    async def test_it_is_no_step_of_its_request(self, register: Register) -> None:
        request, row = build.row("r1"), callback()
        await register.open([request], due=NOW)
        await register.outbox(row, due=NOW)
        await register.clear(ref(request), revision=1, digest=request.digest, now=NOW, remember=60)
        assert await register.get(ref(row)) == row

    async def test_an_attempt_that_failed_waits_in_the_register_and_is_counted(self, register: Register) -> None:
        row = callback()
        await register.outbox(row, due=NOW)
        await begin(register, row, "h1")
        await register.postpone(ref(row), "h1", due=NOW + 60, counted=True)
        assert await register.unpublished(now=NOW + 59, limit=10) == []
        assert await begin(register, row, "h2") == Begun(Verdict.STARTED, 2)
