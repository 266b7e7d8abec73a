"""One checkpoint a period, whoever seals; nothing new is missed, and nothing that does not hold is sealed."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tasks import keys
from tasks.access.signing import generate
from tasks.audit import ledger as rules
from tasks.audit import note, segment
from tasks.audit.faults import Kind
from tasks.audit.witness import BucketWitness
from tasks.contracts.audit import Action
from tasks.errors import IntegrityError, NotFound, StoreError
from tasks.seal import HOLD
from tasks.stores.objects import MemoryObjectStore
from tests.support import build
from tests.support.ledger import ORIGIN, PERIOD, Ledger, filled, write


@pytest.fixture
async def ledger() -> AsyncIterator[Ledger]:
    ledger = Ledger()
    yield ledger
    await ledger.close()


class Counting(MemoryObjectStore):
    """Counts what is listed and read."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = 0
        self.fetched: list[str] = []

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[str]:
        async for key in super().list(prefix, after=after):
            self.listed += 1
            yield key

    async def get(self, key: str) -> bytes:
        self.fetched.append(key)
        return await super().get(key)


async def marks(ledger: Ledger, number: int) -> dict[str, rules.Mark]:
    found = note.read(ledger.memory.objects[keys.checkpoint(number)], ledger.ring)
    return (await rules.read_state(ledger.memory, number, found.state)).marks


async def test_every_period_has_its_checkpoint_also_an_idle_one(ledger: Ledger) -> None:
    sealer = ledger.sealer()
    first = await sealer.run_once()
    assert first
    assert (first.number, first.size) == (0, 0)
    assert await sealer.run_once() is None
    for number in (1, 2, 3):
        ledger.clock.advance(60)
        sealed = await sealer.run_once()
        assert sealed
        assert (sealed.number, sealed.segments) == (number, 0)
    report = await ledger.verify(witness=ledger.witness)
    assert (report.ok, report.checkpoints) == (True, 4)


async def test_a_checkpoint_is_a_signed_note(ledger: Ledger) -> None:
    await write(ledger.stream(), ["a"])
    await ledger.seal()
    [name, size, root, *_, empty, line, _end] = ledger.memory.objects[keys.checkpoint(0)].decode().split("\n")
    assert (name, size, len(root), empty) == (ORIGIN, "1", 44, "")
    assert line.startswith(f"— {ledger.checkpoints.kid} ")
    assert ledger.witness.objects == {keys.checkpoint(0): ledger.memory.objects[keys.checkpoint(0)]}


async def test_only_what_is_new_is_listed_and_read() -> None:
    store = Counting()
    ledger = Ledger(store)
    stream = ledger.stream()
    sealer = ledger.sealer()
    for number in range(60):
        await write(stream, [f"r{number}"])
        ledger.clock.advance(60)
        await sealer.run_once()
    store.listed, store.fetched = 0, []
    await write(stream, ["last"])
    ledger.clock.advance(60)
    sealed = await sealer.run_once()
    assert sealed
    assert sealed.segments == 1
    assert store.listed <= 8
    assert len([key for key in store.fetched if key.startswith("audit/")]) == 1


async def test_a_late_segment_goes_to_the_next_checkpoint(ledger: Ledger) -> None:
    stream = ledger.stream()
    await write(stream, ["a"])
    late = dict(ledger.memory.objects)
    ledger.memory.objects.clear()
    await ledger.seal()
    ledger.memory.objects |= late
    sealed = await ledger.seal()
    assert sealed.segments == 1
    assert (await ledger.verify(witness=ledger.witness)).ok


async def test_a_segment_waits_for_the_one_before_it_and_no_longer_than_that_can_come(ledger: Ledger) -> None:
    stream = ledger.stream()
    for request_id in ("a", "b", "c"):
        await write(stream, [request_id], clock=ledger.clock)
    missing = ledger.listed()[1]
    kept = ledger.memory.objects.pop(missing)
    assert (await ledger.seal()).segments == 1
    ledger.memory.objects[missing] = kept
    assert (await ledger.seal()).segments == 2
    assert (await ledger.verify()).ok

    await write(stream, ["d"], clock=ledger.clock)
    await write(stream, ["e"], clock=ledger.clock)
    gone = next(key for key in ledger.listed() if keys.parse_segment(key).first == 3)
    del ledger.memory.objects[gone]
    assert (await ledger.seal()).segments == 0
    ledger.clock.advance(HOLD.total_seconds())
    assert (await ledger.seal()).segments == 1
    [fault] = await ledger.faults()
    assert (fault.kind, fault.stream, fault.sequence) == (Kind.MISSING, stream.name, 3)


async def test_what_does_not_hold_is_not_sealed_and_recorded_once(ledger: Ledger) -> None:
    stream = ledger.stream("door", signer=generate("stranger"))
    await write(stream, ["a"])
    [forged] = ledger.listed()
    gaps = ledger.stream("sealer")
    sealer = ledger.sealer(audit=gaps)
    for _ in range(3):
        sealed = await sealer.run_once(force=True)
        assert sealed
        assert sealed.segments == 0
    await gaps.commit()
    own = next(key for key in ledger.listed() if "~sealer~" in key)
    [line] = segment.unpack(ledger.memory.objects[own]).lines
    assert Action.AUDIT_GAP.value.encode() in line
    assert forged.encode() in line
    [fault] = await ledger.faults()
    assert (fault.kind, fault.object) == (Kind.BAD_SIGNATURE, forged)
    ledger.clock.advance(rules.LOOK_BACK.total_seconds())
    await ledger.seal()
    await ledger.seal()
    assert (await ledger.faults())[0].kind is Kind.INSERTED


async def test_a_stream_that_ended_is_marked_and_then_forgotten(ledger: Ledger) -> None:
    stream = ledger.stream()
    name = stream.name
    await write(stream, ["a"])
    await ledger.seal()
    assert (await marks(ledger, 0))[name].closed == ""
    await stream.close()
    await ledger.seal()
    assert (await marks(ledger, 1))[name].closed == "stream"
    ledger.clock.advance(rules.LOOK_BACK.total_seconds())
    await ledger.seal()
    assert await marks(ledger, 2) == {}


async def test_an_idle_stream_is_closed_by_the_sealer_and_its_process_begins_another(ledger: Ledger) -> None:
    stream = ledger.stream()
    first = stream.name
    await write(stream, ["a"])
    await ledger.seal()
    ledger.clock.advance(rules.CLOSE.total_seconds())
    assert (await ledger.seal()).closed == 1
    assert (await marks(ledger, 1))[first].closed == "sealer"
    await write(stream, ["b"])
    assert stream.name != first
    await ledger.seal()
    report = await ledger.verify(witness=ledger.witness)
    assert (report.ok, report.records) == (True, 2)


async def test_a_segment_after_the_close_is_inserted(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = ledger.stream()
    await write(stream, ["a"])
    await ledger.seal()
    ledger.clock.advance(rules.CLOSE.total_seconds())
    await ledger.seal()
    monkeypatch.setattr("tasks.audit.stream.ROTATE", timedelta(days=1))
    await write(stream, ["b"])
    inserted = ledger.listed()[-1]
    assert [(fault.kind, fault.object) for fault in await ledger.faults()] == [(Kind.INSERTED, inserted)]
    assert (await ledger.seal()).segments == 0
    assert [(fault.kind, fault.object) for fault in await ledger.faults()] == [(Kind.INSERTED, inserted)]


async def test_a_process_that_cannot_write_for_long_goes_on_in_a_new_stream(ledger: Ledger) -> None:
    class Away(MemoryObjectStore):
        tries = 0

        async def create(self, key: str, data: bytes) -> None:
            self.tries += 1
            if self.tries < 4:
                ledger.clock.advance(rules.GIVE_UP.total_seconds() / 2)
                raise StoreError("away")
            await super().create(key, data)

    store = Away()
    away = Ledger(store)
    away.clock = ledger.clock
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.audit.stream._RETRY_SECONDS", (0.0,))
        stream = away.stream()
        first = stream.name
        await write(stream, ["a", "b"])
    assert stream.name != first
    report = await away.verify()
    assert (report.ok, report.records, report.segments) == (True, 2, 1)


async def test_100_000_streams_of_one_record_leave_small_checkpoints() -> None:
    """The marks of streams that ended do not pile up; a checkpoint names its lists and does not hold them."""
    state = rules.State()
    time = build.EPOCH
    for batch in range(10):
        time += PERIOD
        leaves = [
            rules.Leaf(
                key=keys.segment(keys.stream("door", f"host-{batch}", f"{batch}-{number}"), 0, time),
                count=2,
                last=f"{number:064x}",
                object=f"{number:064x}",
                closed=True,
            )
            for number in range(10_000)
        ]
        state.advance(leaves, time)
    state.advance([], time + rules.LOOK_BACK + PERIOD)
    assert state.tree.size == 100_000
    assert len(state.to_lines()) < 1000


async def test_sealing_goes_on_where_it_could_not_take_everything(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.seal.MOST_LEAVES", 3)
    stream = ledger.stream()
    for number in range(8):
        await write(stream, [f"r{number}"], clock=ledger.clock)
    sealer = ledger.sealer()
    sealed = [await sealer.run_once(force=True) for _ in range(3)]
    assert [(found.segments, found.complete) for found in sealed if found] == [(3, False), (3, False), (2, True)]
    assert (await ledger.verify()).ok


async def test_of_many_sealers_one_wins_each_checkpoint(ledger: Ledger) -> None:
    class Slow(MemoryObjectStore):
        async def create(self, key: str, data: bytes) -> None:
            await asyncio.sleep(0)
            await super().create(key, data)

    race = Ledger(Slow())
    sealers = [race.sealer(now=lambda ahead=ahead: race.clock() + timedelta(milliseconds=ahead)) for ahead in range(5)]
    stream = race.stream()
    for number in range(10):
        await write(stream, [f"r{number}"], clock=race.clock)
        race.clock.advance(60)
        won = await asyncio.gather(*(sealer.run_once() for sealer in sealers))
        assert len([sealed for sealed in won if sealed]) == 1
    report = await race.verify(witness=race.witness)
    assert (report.ok, report.checkpoints, report.segments) == (True, 10, 10)


async def test_a_write_of_its_own_whose_answer_was_lost_is_its_own(ledger: Ledger) -> None:
    class Lossy(MemoryObjectStore):
        async def create(self, key: str, data: bytes) -> None:
            await super().create(key, data)
            if key.startswith(keys.CHECKPOINTS):
                await super().create(key, data)

    lossy = Ledger(Lossy())
    assert (await lossy.seal()).number == 0
    assert (await lossy.seal()).number == 1


@pytest.mark.parametrize("broken", ["gone", "signed by a stranger", "of another ledger", "without its state", "gap"])
async def test_a_ledger_is_not_continued_on_what_does_not_hold(broken: str) -> None:
    ledger = await filled(rounds=6)
    newest = keys.checkpoint(5)
    objects = ledger.memory.objects
    found = note.read(objects[newest], ledger.ring)
    if broken == "gone":
        objects[newest] = b""
    elif broken == "signed by a stranger":
        objects[newest] = note.sign(found, generate("stranger"))
    elif broken == "of another ledger":
        objects[newest] = note.sign(
            note.Checkpoint(**{**{n: getattr(found, n) for n in found.__struct_fields__}, "origin": "other"}),
            ledger.checkpoints,
        )
    elif broken == "gap":
        del objects[keys.checkpoint(3)]
    else:
        del objects[keys.ledger_state(5, found.state)]
    before = dict(objects)
    with pytest.raises((IntegrityError, NotFound)):
        await ledger.sealer().run_once(force=True)
    assert objects == before


async def test_the_newest_checkpoint_is_found_in_few_steps() -> None:
    for count in range(40):
        store = MemoryObjectStore()
        for number in range(count):
            store.objects[keys.checkpoint(number)] = b""
        assert await rules.newest(store) == count - 1


async def test_a_witness_that_was_away_gets_everything_later(ledger: Ledger) -> None:
    class Away(BucketWitness):
        away = True

        async def receive(self, number: int, note: bytes) -> None:
            if self.away:
                raise StoreError("away")
            await super().receive(number, note)

    witness = Away(ledger.witness)
    sealer = ledger.sealer(witness=witness)
    for _ in range(3):
        ledger.clock.advance(60)
        assert await sealer.run_once()
    assert ledger.witness.objects == {}
    witness.away = False
    await sealer.run_once()
    assert sorted(ledger.witness.objects) == [keys.checkpoint(number) for number in range(3)]
    assert (await ledger.verify(witness=ledger.witness)).ok


async def test_a_witness_with_another_checkpoint_is_recorded(ledger: Ledger) -> None:
    ledger.witness.objects[keys.checkpoint(0)] = b"another"
    gaps = ledger.stream("sealer")
    await ledger.sealer(audit=gaps).run_once()
    await gaps.commit()
    [key] = ledger.listed()
    assert b"forked" in segment.unpack(ledger.memory.objects[key]).lines[0]
