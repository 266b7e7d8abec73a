"""A sealed bucket verifies; whatever is done to it is found, and the object, the record and the kind are named."""

import random
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

import orjson
import pytest
import zstandard

from tasks import keys
from tasks.access.signing import generate
from tasks.audit import ledger as rules
from tasks.audit import note, segment
from tasks.audit.faults import Fault, Kind
from tasks.contracts.base import canonical
from tasks.stores.objects import MemoryObjectStore
from tests.support.ledger import Ledger, filled, write

Objects = dict[str, bytes]


@pytest.fixture
async def ledger() -> Ledger:
    return await filled()


def copied(ledger: Ledger) -> MemoryObjectStore:
    copy = MemoryObjectStore()
    copy.objects = dict(ledger.memory.objects)
    return copy


async def test_an_untouched_bucket_holds(ledger: Ledger) -> None:
    report = await ledger.verify(witness=ledger.witness)
    assert (report.ok, report.faults) == (True, [])
    assert (report.checkpoints, report.segments, report.unsealed) == (4, 12, 0)
    assert report.records == 3 * 11 + 1


async def test_progress_comes_to_its_end(ledger: Ledger) -> None:
    heard: list[tuple[int, int]] = []
    await ledger.verify(progress=lambda done, total: heard.append((done, total)))
    assert heard[-1] == (12, 12)


async def test_without_a_witness_it_says_what_cannot_be_excluded(ledger: Ledger) -> None:
    [caveat] = (await ledger.verify()).caveats
    assert "truncation after checkpoint 3 of 2030-01-01T00:04" in caveat
    assert (await ledger.verify(witness=ledger.witness)).caveats == []


async def test_what_is_not_sealed_yet_is_checked_as_the_continuation(ledger: Ledger) -> None:
    late = ledger.stream("door")
    await write(late, ["a", "b"])
    report = await ledger.verify()
    assert (report.ok, report.unsealed, report.segments) == (True, 1, 13)
    assert "1 segments are not sealed" in report.caveats[-1]


async def test_since_looks_only_at_what_came_later(ledger: Ledger) -> None:
    for number in range(4):
        report = await ledger.verify(since=number)
        assert (report.ok, report.checkpoints) == (True, 3 - number), report.faults
        assert f"up to checkpoint {number} was not looked at" in report.caveats[0]
    del ledger.memory.objects[ledger.listed()[0]]
    assert (await ledger.verify(since=1)).ok
    assert not (await ledger.verify()).ok


async def test_since_a_checkpoint_that_was_kept_finds_another_one(ledger: Ledger) -> None:
    kept = ledger.memory.objects[keys.checkpoint(2)]
    assert (await ledger.verify(since=2, since_note=kept)).ok
    [fault] = await ledger.faults(since=2, since_note=ledger.memory.objects[keys.checkpoint(1)])
    assert (fault.kind, fault.object) == (Kind.FORKED, keys.checkpoint(2))


async def test_segments_past_retention_are_expired_and_not_missing(ledger: Ledger) -> None:
    first, second = ledger.listed()[:2]
    cut = keys.parse_segment(second).time
    del ledger.memory.objects[first]
    report = await ledger.verify(expired_before=cut)
    assert (report.ok, report.expired, report.segments) == (True, 1, 11)
    assert "gone by retention" in report.caveats[-1]
    del ledger.memory.objects[second]
    report = await ledger.verify(expired_before=cut)
    assert [fault.object for fault in report.faults] == [second]


async def test_a_bucket_in_use_is_not_taken_for_one_with_a_gap(ledger: Ledger) -> None:
    """A segment may be written just after its place was listed, and the next one just before its own is."""

    class InUse(MemoryObjectStore):
        listings = 0

        async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[str]:
            self.listings += prefix == keys.AUDIT_PREFIX
            async for key in super().list(prefix, after=after):
                if key != hidden or self.listings > 1:
                    yield key

    stream = ledger.stream("door")
    for request_id in ("a", "b", "c"):
        await write(stream, [request_id], clock=ledger.clock)
    hidden = ledger.listed()[-2]
    store = InUse()
    store.objects = ledger.memory.objects
    report = await ledger.verify(store)
    assert (report.faults, report.unsealed) == ([], 3)
    del ledger.memory.objects[hidden]
    [fault] = await ledger.faults()
    assert (fault.kind, fault.stream, fault.sequence) == (Kind.MISSING, stream.name, 1)


async def test_what_is_not_sealed_is_checked_with_its_kind(ledger: Ledger) -> None:
    stream = ledger.stream("door")
    for request_id in ("a", "b"):
        await write(stream, [request_id], clock=ledger.clock)
    first, second = ledger.listed()[-2:]
    objects = dict(ledger.memory.objects)
    ledger.memory.objects[first] = objects[second]
    assert (Kind.INSERTED, first) in [(fault.kind, fault.object) for fault in await ledger.faults()]
    ledger.memory.objects[first] = repacked(objects[first], lambda record: None, random.Random(1))[:-1]
    assert (Kind.ALTERED, first) in [(fault.kind, fault.object) for fault in await ledger.faults()]


# Every way to tamper ------------------------------------------------------------------------------------------


@dataclass
class Case:
    """A copy that was tampered with: ``named`` are the objects of which one must be named."""

    store: MemoryObjectStore
    named: set[str] = field(default_factory=set)
    kinds: set[Kind] = field(default_factory=set)


Tamper = Callable[[Ledger, MemoryObjectStore, random.Random], Case]


def one(store: MemoryObjectStore, rng: random.Random, prefix: str = "audit/") -> str:
    return rng.choice(sorted(key for key in store.objects if key.startswith(prefix)))


def bit_flip(_: Ledger, store: MemoryObjectStore, rng: random.Random) -> Case:
    key = one(store, rng, "")
    data = bytearray(store.objects[key])
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    store.objects[key] = bytes(data)
    named = {key}
    if key.startswith(keys.CHECKPOINTS):
        named.add(keys.checkpoint(int(key[-12:]) + 1))
    return Case(store, named)


def repacked(data: bytes, edit: Callable[[dict[str, object]], object], rng: random.Random) -> bytes:
    """Edit one record; put every hash that needs no key right again."""
    found = segment.unpack(data)
    records = [orjson.loads(line) for line in found.lines]
    at = rng.randrange(len(records))
    edit(records[at])
    lines, previous = [], found.header.previous
    for record in records:
        record["previous"] = previous
        lines.append(canonical(record))
        previous = segment.sha256(lines[-1]).hexdigest()
    digest = segment.sha256(b"".join(segment.sha256(line).digest() for line in lines)).hexdigest()
    header = canonical({**orjson.loads(found.header_line), "digest": digest})
    footer = zstandard.ZstdDecompressor().decompress(data).split(b"\n")[-2]
    return zstandard.ZstdCompressor(level=1).compress(b"\n".join([header, *lines, footer, b""]))


def record_edit(_: Ledger, store: MemoryObjectStore, rng: random.Random) -> Case:
    key = one(store, rng)
    store.objects[key] = repacked(store.objects[key], lambda record: record.update(actor="nobody"), rng)
    return Case(store, {key}, {Kind.BAD_SIGNATURE})


def record_edit_signed_by_a_stranger(ledger: Ledger, store: MemoryObjectStore, rng: random.Random) -> Case:
    key = one(store, rng)
    found = segment.unpack(store.objects[key])
    lines = [line.replace(b"about", b"above") for line in found.lines]
    chained = [canonical({**orjson.loads(line), "previous": previous}) for line, previous in chain(lines, found)]
    time, stream, first = keys.parse_segment(key)
    signer = rng.choice([generate("stranger"), ledger.checkpoints])
    store.objects[key] = segment.pack(
        chained, stream=stream, first=first, previous=found.header.previous, time=time, signer=signer
    )
    return Case(store, {key}, {Kind.BAD_SIGNATURE})


def record_edit_signed_by_its_pool(ledger: Ledger, store: MemoryObjectStore, rng: random.Random) -> Case:
    """A worker's key was stolen: the checkpoint still says what was there."""
    key = one(store, rng)
    found = segment.unpack(store.objects[key])
    lines = [line.replace(b"tester", b"nobody") for line in found.lines]
    chained = [canonical({**orjson.loads(line), "previous": previous}) for line, previous in chain(lines, found)]
    time, stream, first = keys.parse_segment(key)
    signer = ledger.pools[keys.stream_component(stream)]
    data = segment.pack(chained, stream=stream, first=first, previous=found.header.previous, time=time, signer=signer)
    if data == store.objects[key]:
        return record_edit(ledger, store, rng)
    store.objects[key] = data
    return Case(store, {key}, {Kind.FORKED})


def chain(lines: list[bytes], found: segment.Unpacked) -> Iterator[tuple[bytes, str]]:
    previous = found.header.previous
    for line in lines:
        yield line, previous
        previous = segment.sha256(canonical({**orjson.loads(line), "previous": previous})).hexdigest()


def deleted(_: Ledger, store: MemoryObjectStore, rng: random.Random) -> Case:
    key = one(store, rng)
    del store.objects[key]
    return Case(store, {key}, {Kind.MISSING, Kind.TRUNCATED})


def duplicated(_: Ledger, store: MemoryObjectStore, rng: random.Random) -> Case:
    key = one(store, rng)
    time, stream, first = keys.parse_segment(key)
    other = keys.segment(stream, first + rng.randrange(1, 9), time)
    if rng.random() < 0.5 or other in store.objects:
        other = keys.segment(stream, first, time.replace(microsecond=7000))
    store.objects[other] = store.objects[key]
    return Case(store, {other}, {Kind.INSERTED})


def swapped(_: Ledger, store: MemoryObjectStore, rng: random.Random) -> Case:
    a, b = rng.sample(sorted(key for key in store.objects if key.startswith("audit/")), 2)
    store.objects[a], store.objects[b] = store.objects[b], store.objects[a]
    return Case(store, {a, b}, {Kind.REORDERED})


def truncated(_: Ledger, store: MemoryObjectStore, rng: random.Random) -> Case:
    key = one(store, rng, rng.choice(["audit/", "ledger/", "checkpoints/"]))
    store.objects[key] = store.objects[key][: rng.randrange(len(store.objects[key]))]
    named = {key}
    if key.startswith(keys.CHECKPOINTS):
        named.add(keys.checkpoint(int(key[-12:]) + 1))
    return Case(store, named, {Kind.ALTERED})


def tail_removed(_: Ledger, store: MemoryObjectStore, rng: random.Random) -> Case:
    stream = keys.parse_segment(one(store, rng)).stream
    own = sorted(key for key in store.objects if f"~{stream}~" in key)
    gone = own[rng.randrange(1, len(own)) if len(own) > 1 else 0 :]
    for key in gone:
        del store.objects[key]
    return Case(store, set(gone), {Kind.TRUNCATED, Kind.MISSING})


def ledger_tail_removed(_: Ledger, store: MemoryObjectStore, rng: random.Random) -> Case:
    """Everything since a checkpoint is taken back: only the witness knows."""
    newest = max(key for key in store.objects if key.startswith(keys.CHECKPOINTS))
    cut = rng.randrange(int(newest[-12:]) + 1)
    gone = {key for key in store.objects if key.startswith((keys.CHECKPOINTS, keys.LEDGER)) and number(key) >= cut}
    for key in gone:
        del store.objects[key]
    return Case(store, {keys.checkpoint(cut)}, {Kind.TRUNCATED})


def number(key: str) -> int:
    return int(key.split("/")[1][:12])


def checkpoint_removed(_: Ledger, store: MemoryObjectStore, rng: random.Random) -> Case:
    key = one(store, rng, keys.CHECKPOINTS)
    del store.objects[key]
    return Case(store, {key}, {Kind.GAP, Kind.TRUNCATED})


def ledger_object_removed(_: Ledger, store: MemoryObjectStore, rng: random.Random) -> Case:
    key = one(store, rng, keys.LEDGER)
    del store.objects[key]
    return Case(store, {key}, {Kind.MISSING})


def checkpoint_replayed(_: Ledger, store: MemoryObjectStore, rng: random.Random) -> Case:
    names = sorted(key for key in store.objects if key.startswith(keys.CHECKPOINTS))
    old, place = rng.sample(names, 2)
    if rng.random() < 0.3:
        place = keys.checkpoint(len(names))
    store.objects[place] = store.objects[old]
    return Case(store, {place}, {Kind.REORDERED})


def checkpoint_forked(ledger: Ledger, store: MemoryObjectStore, rng: random.Random) -> Case:
    """The sealer's own key signs another history."""
    key = one(store, rng, keys.CHECKPOINTS)
    found = note.read(store.objects[key], ledger.ring)
    leaves, _ = rules.pack(b"")
    digest = segment.sha256(leaves).hexdigest()
    store.objects[keys.leaves(found.number, digest)] = leaves
    forged = note.Checkpoint(
        origin=found.origin,
        size=found.size,
        root=found.root,
        number=found.number,
        time=found.time,
        previous=found.previous,
        leaves=digest if rng.random() < 0.5 else found.leaves,
        state=found.state,
    )
    if forged == found:
        forged = note.Checkpoint(
            **{name: getattr(found, name) for name in found.__struct_fields__ if name != "root"}, root="ab" * 32
        )
    store.objects[key] = note.sign(forged, ledger.checkpoints)
    return Case(store, {key}, {Kind.FORKED})


def segment_inserted_after_the_close(ledger: Ledger, store: MemoryObjectStore, rng: random.Random) -> Case:
    """The pool's own key goes on with a stream that was closed."""
    closed = next(key for key in sorted(store.objects) if key.startswith("audit/") and is_closing(store.objects[key]))
    time, stream, first = keys.parse_segment(closed)
    content = segment.check(closed, store.objects[closed], ledger.ring)
    line = orjson.loads(segment.unpack(store.objects[closed]).lines[-1])
    following = first + content.header.count
    record = canonical({**line, "sequence": following, "previous": content.last, "action": "request.accepted"})
    later = time.replace(microsecond=rng.randrange(1, 999) * 1000)
    key = keys.segment(stream, following, later)
    store.objects[key] = segment.pack(
        [record],
        stream=stream,
        first=following,
        previous=content.last,
        time=later,
        signer=ledger.pools[keys.stream_component(stream)],
    )
    return Case(store, {key}, {Kind.INSERTED})


def is_closing(data: bytes) -> bool:
    return b'"action":"stream.closed"' in segment.unpack(data).lines[-1]


def junk_inserted(_: Ledger, store: MemoryObjectStore, rng: random.Random) -> Case:
    time, stream, first = keys.parse_segment(one(store, rng))
    key = rng.choice(["audit/2030/01/01/00/junk", keys.segment(stream, first + 1, time)])
    store.objects[key] = rng.randbytes(rng.randrange(1, 50))
    return Case(store, {key})


TAMPERINGS: list[Tamper] = [
    bit_flip,
    record_edit,
    record_edit_signed_by_a_stranger,
    record_edit_signed_by_its_pool,
    deleted,
    duplicated,
    swapped,
    truncated,
    tail_removed,
    ledger_tail_removed,
    checkpoint_removed,
    ledger_object_removed,
    checkpoint_replayed,
    checkpoint_forked,
    segment_inserted_after_the_close,
    junk_inserted,
]


async def assert_found(ledger: Ledger, tamper: Tamper, seed: int) -> list[Fault]:
    case = tamper(ledger, copied(ledger), random.Random(seed))
    found = await ledger.faults(case.store, witness=ledger.witness)
    named = [fault for fault in found if fault.object in case.named]
    assert named, (tamper.__name__, seed, case.named, found)
    assert not case.kinds or case.kinds & {fault.kind for fault in named}, (tamper.__name__, seed, named)
    return found


@pytest.mark.parametrize("tamper", TAMPERINGS)
async def test_whatever_is_done_to_a_sealed_bucket_is_found_and_named(ledger: Ledger, tamper: Tamper) -> None:
    for seed in range(20):
        await assert_found(ledger, tamper, seed)


@pytest.mark.slow
async def test_two_thousand_random_tamperings_are_found_and_named() -> None:
    ledger = await filled(rounds=6)
    rng = random.Random(2026)
    for _ in range(2000):
        await assert_found(ledger, rng.choice(TAMPERINGS), rng.randrange(1 << 32))
