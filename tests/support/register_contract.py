"""What every register does. Subclasses give the ``register`` fixture: the fake's and the real one's."""

from hashlib import sha1
from typing import Any

import pytest
from msgspec.structs import replace

from tasks.contracts.row import Row, Stage
from tasks.errors import LeaseLost
from tasks.stores.register import Begun, Due, Handover, Kept, Lease, Opened, Register, Verdict
from tests.support import build
from tests.support.build import NOW, ref

QUEUE = "requests"
WORK_QUEUE = "agents.responder"
LEASE = 15.0
HANDOVER = Handover(Stage.WORK, WORK_QUEUE, '{"routed":true}')


async def begin(register: Register, row: Row, holder: str = "h1", **fields: Any) -> Begun:
    standard = {
        "stage": row.stage,
        "revision": row.revision,
        "digest": row.digest,
        "holder": holder,
        "now": NOW,
        "lease": LEASE,
        "attempts": 5,
    }
    return await register.begin(ref(row), **{**standard, **fields})


async def opened(register: Register, *rows: Row) -> Row:
    assert set(await register.open(rows, due=NOW + 10)) == {Opened.CREATED}
    return rows[0]


async def published(register: Register, row: Row, *, now: float = NOW) -> Row:
    standing = await register.get(ref(row)) or await opened(register, row)
    await register.published([(ref(row), standing.queue, standing.generation)], now=now)
    return row


async def state_of(register: Register, row: Row) -> str:
    standing = await register.get(ref(row))
    return standing.state if standing else "gone"


class RegisterContract:
    """Opening, publishing, leases and their ends."""

    async def test_a_new_row_reads_back_as_it_was_given(self, register: Register) -> None:
        row = build.row("r:1.a", deadline=NOW + 60.25, session="s-1", message='{"text":"é \\"x\\""}', tenant="acme")
        assert await register.open([row], due=NOW + 10) == [Opened.CREATED]
        assert await register.get("acme/r:1.a") == row
        assert row.state == "delayed"

    async def test_an_unknown_ref_has_no_row(self, register: Register) -> None:
        assert await register.get("default/none") is None
        assert await register.are_open(["default/none"]) == [False]

    async def test_opening_nothing_is_no_error(self, register: Register) -> None:
        assert await register.open([], due=NOW) == []
        assert await register.are_open([]) == []
        assert await register.extend([], now=NOW, lease=LEASE) == []
        await register.published([], now=NOW)

    async def test_the_same_body_is_the_same_request_and_another_body_a_conflict(self, register: Register) -> None:
        row, other = build.row("r1"), build.row("r1", digest="another")
        assert await register.open([row, row, other], due=NOW) == [Opened.CREATED, Opened.SAME, Opened.CONFLICT]
        assert await register.get(ref(row)) == row

    async def test_only_the_message_that_the_row_has_begins_it_and_only_in_its_queue(self, register: Register) -> None:
        row = await published(register, build.row("r1", message='{"text":"é"}'))
        own, other = (sha1(text.encode()).hexdigest() for text in (row.message, '{"text":"e"}'))
        assert (await begin(register, row, queue=row.queue, seal=other)).verdict is Verdict.MISMATCH
        assert (await begin(register, row, queue="agents.executor", seal=own)).verdict is Verdict.STALE
        assert await begin(register, row, queue=row.queue, seal=own) == Begun(Verdict.STARTED, 1)
        await register.advance(ref(row), "h1", HANDOVER, due=NOW)
        new = sha1(HANDOVER.message.encode()).hexdigest()
        moved = {"stage": Stage.WORK, "queue": WORK_QUEUE}
        assert (await begin(register, row, "h2", **moved, seal=own)).verdict is Verdict.MISMATCH
        assert await begin(register, row, "h2", **moved, seal=new) == Begun(Verdict.STARTED, 1)

    async def test_the_same_id_of_two_tenants_is_two_requests(self, register: Register) -> None:
        rows = [build.row("r1", tenant="a"), build.row("r1", tenant="b", digest="another")]
        assert await register.open(rows, due=NOW) == [Opened.CREATED, Opened.CREATED]

    async def test_a_finished_request_is_remembered(self, register: Register) -> None:
        row = await opened(register, build.row("r1"))
        await register.clear(ref(row), revision=1, digest=row.digest, now=NOW, remember=60)
        assert await register.open([row, build.row("r1", digest="another")], due=NOW) == [
            Opened.FINISHED,
            Opened.CONFLICT,
        ]
        assert await register.get(ref(row)) is None

    async def test_what_nobody_publishes_is_unpublished_from_its_due_time_on(self, register: Register) -> None:
        row = await opened(register, build.row("r1"))
        assert await register.unpublished(now=NOW + 9.5, limit=10) == []
        assert await register.unpublished(now=NOW + 10, limit=10) == [ref(row)]

    async def test_publishing_moves_a_row_from_the_unpublished_to_its_queue(self, register: Register) -> None:
        row = await published(register, build.row("r1"), now=NOW + 0.25)
        standing = await register.get(ref(row))
        assert standing is not None
        assert (standing.published, standing.recorded, standing.queued_at) == (True, True, NOW + 0.25)
        assert standing.state == "waiting"
        assert await register.unpublished(now=NOW + 99, limit=10) == []
        assert await register.lost(QUEUE, before=NOW, limit=10) == []
        assert await register.lost(QUEUE, before=NOW + 0.25, limit=10) == [ref(row)]
        assert await register.lost(WORK_QUEUE, before=NOW + 99, limit=10) == []

    @pytest.mark.parametrize("mark", [("default/r1", "other", 0), ("default/r1", QUEUE, 1), ("default/r2", QUEUE, 0)])
    async def test_a_mark_for_another_queue_generation_or_row_changes_nothing(
        self, register: Register, mark: tuple[str, str, int]
    ) -> None:
        row = await opened(register, build.row("r1"))
        await register.published([mark], now=NOW)
        assert await register.get(ref(row)) == row
        assert await register.get("default/r2") is None

    async def test_a_mark_that_comes_after_the_attempt_began_changes_nothing(self, register: Register) -> None:
        row = await opened(register, build.row("r1"))
        await begin(register, row)
        before = await register.get(ref(row))
        await register.published([(ref(row), QUEUE, 0)], now=NOW + 1)
        assert await register.get(ref(row)) == before
        assert await register.lost(QUEUE, before=NOW + 99, limit=10) == []

    async def test_beginning_takes_the_lease_and_counts(self, register: Register) -> None:
        row = await published(register, build.row("r1"))
        assert await begin(register, row) == Begun(Verdict.STARTED, 1)
        standing = await register.get(ref(row))
        assert standing is not None
        assert (standing.holder, standing.lease_end, standing.state) == ("h1", NOW + LEASE, "running")
        assert await register.lost(QUEUE, before=NOW + 99, limit=10) == []
        assert await register.lapsed(before=NOW + LEASE - 1, limit=10) == []
        assert await register.lapsed(before=NOW + LEASE, limit=10) == [ref(row)]
        assert await register.counts() == {"leased": 1, "delayed": 0}

    async def test_an_attempt_may_begin_before_the_mark(self, register: Register) -> None:
        row = await opened(register, build.row("r1"))
        assert (await begin(register, row)).verdict is Verdict.STARTED
        assert await register.unpublished(now=NOW + 99, limit=10) == []

    async def test_a_live_lease_holds_others_off_until_its_end(self, register: Register) -> None:
        row = await published(register, build.row("r1"))
        await begin(register, row)
        assert await begin(register, row, "h2", now=NOW + LEASE - 0.01) == Begun(Verdict.HELD)
        assert await begin(register, row, "h2", now=NOW + LEASE) == Begun(Verdict.STARTED, 2)

    async def test_another_digest_stage_or_revision_does_not_begin(self, register: Register) -> None:
        row = await published(register, build.row("r1"))
        assert await begin(register, row, digest="another") == Begun(Verdict.MISMATCH)
        assert await begin(register, row, stage=Stage.WORK) == Begun(Verdict.STALE)
        assert await begin(register, row, revision=2) == Begun(Verdict.STALE)
        assert await state_of(register, row) == "waiting"

    async def test_what_was_never_opened_is_unknown_and_what_ended_is_finished(self, register: Register) -> None:
        row = build.row("r1")
        assert await begin(register, row) == Begun(Verdict.UNKNOWN)
        await opened(register, row)
        await register.clear(ref(row), revision=1, digest=row.digest, now=NOW, remember=60)
        assert await begin(register, row) == Begun(Verdict.FINISHED)

    async def test_the_attempt_after_the_last_holds_the_lease_but_is_exhausted(self, register: Register) -> None:
        row = await published(register, build.row("r1"))
        assert await begin(register, row, attempts=1) == Begun(Verdict.STARTED, 1)
        assert await begin(register, row, "h2", attempts=1, now=NOW + 99) == Begun(Verdict.EXHAUSTED, 2)
        assert await register.extend([Lease(ref(row), "h2")], now=NOW, lease=LEASE) == [Kept.KEPT]

    async def test_only_the_holder_extends(self, register: Register) -> None:
        row = await published(register, build.row("r1"))
        await begin(register, row)
        leases = [Lease(ref(row), "h2"), Lease(ref(row), "h1")]
        assert await register.extend(leases, now=NOW + 5, lease=LEASE) == [Kept.LOST, Kept.KEPT]
        assert await register.lapsed(before=NOW + LEASE, limit=10) == []
        assert await register.lapsed(before=NOW + 5 + LEASE, limit=10) == [ref(row)]

    async def test_extending_what_nobody_holds_takes_no_lease_and_is_no_loss(self, register: Register) -> None:
        row = await published(register, build.row("r1"))
        before = await register.get(ref(row))
        leases = [Lease(ref(row), "h1"), Lease("default/none", "h1")]
        assert await register.extend(leases, now=NOW, lease=LEASE) == [Kept.KEPT, Kept.KEPT]
        assert await register.get(ref(row)) == before
        assert await register.get("default/none") is None
        assert await register.counts() == {"leased": 0, "delayed": 0}

    async def test_who_holds_a_lease_on_what_has_ended_is_told_so(self, register: Register) -> None:
        row = await published(register, build.row("r1", revision=2))
        await begin(register, row)
        await register.clear(ref(row), revision=2, digest=row.digest, now=NOW, remember=60)
        leases = [Lease(ref(row), "h1", revision) for revision in (1, 2, 3)]
        # Of a revision that is not known to have ended the register has lost the row.
        told = [Kept.ENDED, Kept.ENDED, Kept.KEPT]
        assert await register.extend(leases, now=NOW + 1, lease=LEASE) == told
        assert await register.counts() == {"leased": 0, "delayed": 0}

    @pytest.mark.parametrize("revision", [1, 2])
    async def test_what_ended_before_its_message_was_read_is_dropped_once(
        self, register: Register, revision: int
    ) -> None:
        row = await published(register, build.row("r1", revision=revision))
        for _ in range(2):
            await register.clear(ref(row), revision=revision, digest=row.digest, now=NOW, remember=60)
        assert await begin(register, row, digest="another") == Begun(Verdict.FINISHED)
        assert await begin(register, row) == Begun(Verdict.DROPPED)
        assert await begin(register, row) == Begun(Verdict.FINISHED)
        assert await register.open([row], due=NOW) == [Opened.FINISHED]

    async def test_what_ended_while_it_ran_or_was_in_no_queue_has_no_message_to_come(self, register: Register) -> None:
        running, unpublished = build.row("r1"), build.row("r2")
        await published(register, running)
        await begin(register, running)
        await opened(register, unpublished)
        for row in (running, unpublished):
            await register.clear(ref(row), revision=1, digest=row.digest, now=NOW, remember=60)
            assert await begin(register, row, "h2") == Begun(Verdict.FINISHED)

    async def test_advancing_opens_the_next_hop_with_fresh_attempts(self, register: Register) -> None:
        row = await published(register, build.row("r1"))
        await begin(register, row)
        assert await register.advance(ref(row), "h1", HANDOVER, due=NOW + 10) == 1
        standing = await register.get(ref(row))
        assert standing is not None
        assert (standing.stage, standing.queue, standing.message) == (Stage.WORK, WORK_QUEUE, '{"routed":true}')
        assert (standing.holder, standing.attempts, standing.due, standing.state) == ("", 0, NOW + 10, "delayed")
        assert await register.counts() == {"leased": 0, "delayed": 1}
        assert await begin(register, row) == Begun(Verdict.STALE)
        assert await begin(register, row, stage=Stage.WORK) == Begun(Verdict.STARTED, 1)

    async def test_who_lost_the_lease_cannot_advance_or_postpone(self, register: Register) -> None:
        row = await published(register, build.row("r1"))
        await begin(register, row)
        await begin(register, row, "h2", now=NOW + 99)
        before = await register.get(ref(row))
        with pytest.raises(LeaseLost):
            await register.advance(ref(row), "h1", HANDOVER, due=NOW)
        with pytest.raises(LeaseLost):
            await register.postpone(ref(row), "h1", due=NOW, counted=True)
        with pytest.raises(LeaseLost):
            await register.postpone("default/none", "h1", due=NOW, counted=True)
        assert await register.get(ref(row)) == before

    @pytest.mark.parametrize(("counted", "attempts"), [(True, 1), (False, 0)])
    async def test_a_postponed_request_waits_for_its_time(
        self, register: Register, counted: bool, attempts: int
    ) -> None:
        row = await published(register, build.row("r1"))
        await begin(register, row)
        await register.postpone(ref(row), "h1", due=NOW + 7, counted=counted)
        standing = await register.get(ref(row))
        assert standing is not None
        assert (standing.attempts, standing.generation, standing.state) == (attempts, 1, "delayed")
        assert await register.unpublished(now=NOW + 6, limit=10) == []
        assert await register.unpublished(now=NOW + 7, limit=10) == [ref(row)]
        assert await register.lapsed(before=NOW + 999, limit=10) == []

    async def test_clearing_leaves_nothing_behind(self, register: Register) -> None:
        row = await published(register, build.row("r1", deadline=NOW + 1))
        await begin(register, row)
        assert await register.clear(ref(row), revision=1, digest=row.digest, now=NOW, remember=60) is None
        far = NOW + 9999
        assert await register.get(ref(row)) is None
        assert await register.are_open([ref(row)]) == [False]
        assert await register.lapsed(before=far, limit=10) == []
        assert await register.unpublished(now=far, limit=10) == []
        assert await register.overdue(now=far, limit=10) == []
        assert await register.lost(QUEUE, before=far, limit=10) == []

    async def test_another_revision_is_not_cleared_and_nothing_is_remembered(self, register: Register) -> None:
        row = await opened(register, build.row("r1", revision=2))
        await register.clear(ref(row), revision=1, digest=row.digest, now=NOW, remember=60)
        assert await register.get(ref(row)) == row

    async def test_clearing_twice_is_no_error(self, register: Register) -> None:
        row = await opened(register, build.row("r1"))
        for _ in range(2):
            assert await register.clear(ref(row), revision=1, digest=row.digest, now=NOW, remember=60) is None

    async def test_seizing_counts_no_attempt_and_respects_a_live_lease(self, register: Register) -> None:
        row = await published(register, build.row("r1"))
        assert not await register.seize("default/none", "s", now=NOW, lease=LEASE)
        assert await register.seize(ref(row), "s", now=NOW, lease=LEASE)
        assert not await register.seize(ref(row), "s2", now=NOW + 1, lease=LEASE)
        assert await begin(register, row, now=NOW + 1) == Begun(Verdict.HELD)
        assert await begin(register, row, now=NOW + LEASE) == Begun(Verdict.STARTED, 1)

    async def test_what_is_seized_is_neither_unpublished_nor_queued(self, register: Register) -> None:
        first, second = build.row("r1"), build.row("r2")
        await opened(register, first)
        await published(register, second)
        for row in (first, second):
            assert await register.seize(ref(row), "s", now=NOW, lease=LEASE)
        assert await register.unpublished(now=NOW + 99, limit=10) == []
        assert await register.lost(QUEUE, before=NOW + 99, limit=10) == []

    async def test_overdue_are_those_past_their_deadline(self, register: Register) -> None:
        rows = [build.row("r1", deadline=NOW + 2), build.row("r2", deadline=NOW + 1), build.row("r3")]
        await opened(register, *rows)
        assert await register.overdue(now=NOW + 0.5, limit=10) == []
        assert await register.overdue(now=NOW + 1, limit=10) == ["default/r2"]
        assert await register.overdue(now=NOW + 3, limit=10) == ["default/r2", "default/r1"]
        assert await register.overdue(now=NOW + 3, limit=1) == ["default/r2"]

    async def test_the_oldest_come_first_and_no_more_than_asked_for(self, register: Register) -> None:
        for index in (3, 1, 2):
            await published(register, build.row(f"r{index}"), now=NOW + index)
        assert await register.lost(QUEUE, before=NOW + 9, limit=2) == ["default/r1", "default/r2"]

    @pytest.mark.parametrize("why", list(Due))
    async def test_reclaiming_makes_a_row_wait_to_be_published_again(self, register: Register, why: Due) -> None:
        row = await opened(register, build.row("r1"))
        if why is not Due.UNPUBLISHED:
            await published(register, row)
        if why is Due.LAPSED:
            await begin(register, row)
        taken = await register.reclaim(ref(row), why, before=NOW + 99, due=NOW + 109)
        assert taken is not None
        assert (taken.generation, taken.published, taken.holder, taken.due) == (1, False, "", NOW + 109)
        assert await register.get(ref(row)) == taken
        assert await register.unpublished(now=NOW + 108, limit=10) == []
        assert await register.unpublished(now=NOW + 109, limit=10) == [ref(row)]
        assert await register.lost(QUEUE, before=NOW + 999, limit=10) == []
        assert await register.lapsed(before=NOW + 999, limit=10) == []

    @pytest.mark.parametrize("why", list(Due))
    async def test_two_sweepers_do_not_reclaim_the_same_row(self, register: Register, why: Due) -> None:
        row = await opened(register, build.row("r1"))
        if why is not Due.UNPUBLISHED:
            await published(register, row)
        if why is Due.LAPSED:
            await begin(register, row)
        assert await register.reclaim(ref(row), why, before=NOW + 50, due=NOW + 60)
        assert await register.reclaim(ref(row), why, before=NOW + 50, due=NOW + 60) is None

    async def test_a_row_that_moved_on_is_not_reclaimed(self, register: Register) -> None:
        row = await published(register, build.row("r1"))
        await begin(register, row, now=NOW + 5)
        assert await register.reclaim(ref(row), Due.LOST, before=NOW + 99, due=NOW) is None
        assert await register.reclaim(ref(row), Due.UNPUBLISHED, before=NOW + 99, due=NOW) is None
        assert await register.reclaim(ref(row), Due.LAPSED, before=NOW + 5 + LEASE - 1, due=NOW) is None
        assert await register.reclaim("default/none", Due.LAPSED, before=NOW + 99, due=NOW) is None
        assert await state_of(register, row) == "running"

    async def test_a_reclaimed_lease_is_lost_to_its_holder(self, register: Register) -> None:
        row = await published(register, build.row("r1"))
        await begin(register, row)
        await register.reclaim(ref(row), Due.LAPSED, before=NOW + LEASE, due=NOW)
        with pytest.raises(LeaseLost):
            await register.advance(ref(row), "h1", HANDOVER, due=NOW)


class SessionContract:
    """Turns of one session take their places in the order in which they were accepted."""

    @staticmethod
    async def two_turns(register: Register) -> tuple[Row, Row]:
        """Both at hop 2, neither begun."""
        turns = build.row("t1", session="s"), build.row("t2", session="s")
        await opened(register, *turns)
        for turn in turns:
            await published(register, turn)
            await begin(register, turn)
            await register.advance(ref(turn), "h1", replace(HANDOVER, message="{}"), due=NOW + 10)
        first, second = [turn.changed(stage=Stage.WORK) for turn in turns]
        return first, second

    async def test_turns_are_routed_at_the_same_time(self, register: Register) -> None:
        rows = build.row("t1", session="s"), build.row("t2", session="s")
        await opened(register, *rows)
        assert [(await begin(register, row)).verdict for row in rows] == [Verdict.STARTED] * 2

    async def test_a_later_turn_is_parked_until_the_earlier_ends(self, register: Register) -> None:
        first, second = await self.two_turns(register)
        assert await begin(register, second) == Begun(Verdict.PARKED)
        assert await state_of(register, second) == "parked"
        assert await begin(register, first) == Begun(Verdict.STARTED, 1)
        released = await register.clear(ref(first), revision=1, digest=first.digest, now=NOW + 3, remember=60)
        assert released == ref(second)
        standing = await register.get(ref(second))
        assert standing is not None
        assert (standing.state, standing.due, standing.generation) == ("delayed", NOW + 3, 2)
        assert await register.unpublished(now=NOW + 3, limit=10) == [ref(second)]
        assert await begin(register, second) == Begun(Verdict.STARTED, 1)

    async def test_a_parked_turn_is_nothing_for_the_sweeper(self, register: Register) -> None:
        _, second = await self.two_turns(register)
        await published(register, second)
        await begin(register, second)
        far = NOW + 999
        assert await register.lost(WORK_QUEUE, before=far, limit=10) == []
        assert await register.lapsed(before=far, limit=10) == []
        assert ref(second) not in await register.unpublished(now=far, limit=10)

    async def test_a_turn_that_was_not_parked_needs_no_release(self, register: Register) -> None:
        first, second = await self.two_turns(register)
        assert await register.clear(ref(first), revision=1, digest=first.digest, now=NOW, remember=60) is None
        assert (await begin(register, second)).verdict is Verdict.STARTED

    async def test_a_turn_that_ends_out_of_order_leaves_the_line(self, register: Register) -> None:
        first, second = await self.two_turns(register)
        assert await register.clear(ref(second), revision=1, digest=second.digest, now=NOW, remember=60) is None
        assert (await begin(register, first)).verdict is Verdict.STARTED
        assert await register.clear(ref(first), revision=1, digest=first.digest, now=NOW, remember=60) is None

    async def test_sessions_of_two_tenants_do_not_meet(self, register: Register) -> None:
        rows = [build.row("t1", tenant=tenant, session="s", stage=Stage.WORK) for tenant in ("a", "b")]
        await opened(register, *rows)
        assert [(await begin(register, row)).verdict for row in rows] == [Verdict.STARTED] * 2

    async def test_a_parked_turn_can_be_seized_to_end_it(self, register: Register) -> None:
        _, second = await self.two_turns(register)
        await begin(register, second)
        assert await register.seize(ref(second), "sweeper", now=NOW, lease=LEASE)
        assert await state_of(register, second) == "running"

    async def test_a_mark_that_comes_after_the_turn_was_parked_changes_nothing(self, register: Register) -> None:
        first, second = await self.two_turns(register)
        await begin(register, second)
        await register.published([(ref(second), WORK_QUEUE, 1)], now=NOW + 1)
        assert await state_of(register, second) == "parked"
        assert await register.lost(WORK_QUEUE, before=NOW + 99, limit=10) == []
        await register.clear(ref(first), revision=1, digest=first.digest, now=NOW + 3, remember=60)
        assert await state_of(register, second) == "delayed"


class RevisionContract:
    """A request that has ended may be opened again, as its next revision."""

    @staticmethod
    async def ended(register: Register, *, revision: int = 1) -> Row:
        row = build.row("r1", revision=revision)
        assert await register.open([row], due=NOW) == [Opened.CREATED]
        await register.clear(ref(row), revision=revision, digest=row.digest, now=NOW, remember=60)
        return row

    async def test_the_next_revision_opens_once_the_one_before_has_ended(self, register: Register) -> None:
        first = build.row("r1")
        second = first.changed(revision=2)
        await register.open([first], due=NOW)
        assert await register.open([second], due=NOW) == [Opened.UNFINISHED]
        await register.clear(ref(first), revision=1, digest=first.digest, now=NOW, remember=60)
        assert await register.open([second, second], due=NOW) == [Opened.CREATED, Opened.SAME]
        assert (await register.get(ref(second))) == second
        assert (await begin(register, second)).verdict is Verdict.STARTED

    async def test_while_it_is_open_the_first_one_is_the_same_request_and_its_message_stale(
        self, register: Register
    ) -> None:
        first = await self.ended(register)
        second = first.changed(revision=2)
        await register.open([second], due=NOW)
        assert await register.open([first], due=NOW) == [Opened.SAME]
        assert (await begin(register, first)).verdict is Verdict.STALE
        assert await register.clear(ref(first), revision=1, digest=first.digest, now=NOW, remember=60) is None
        assert await register.get(ref(first)) == second

    async def test_what_has_ended_stays_so_up_to_its_revision(self, register: Register) -> None:
        second = await self.ended(register, revision=2)
        first, third = second.changed(revision=1), second.changed(revision=3)
        assert await register.open([first, second], due=NOW) == [Opened.FINISHED] * 2
        assert (await begin(register, first)).verdict is Verdict.FINISHED
        assert (await begin(register, second)).verdict is Verdict.FINISHED
        assert (await begin(register, third)).verdict is Verdict.UNKNOWN
        assert await register.open([third], due=NOW) == [Opened.CREATED]

    async def test_clearing_an_older_revision_does_not_forget_the_newer(self, register: Register) -> None:
        second = await self.ended(register, revision=2)
        await register.clear(ref(second), revision=1, digest=second.digest, now=NOW, remember=60)
        assert await register.open([second], due=NOW) == [Opened.FINISHED]

    async def test_another_body_is_a_conflict_in_every_revision(self, register: Register) -> None:
        row = await self.ended(register)
        other = row.changed(revision=2, digest="another")
        assert await register.open([other], due=NOW) == [Opened.CONFLICT]
