"""What somebody who can write to the audit bucket, and has no key, tries to stop, to flood or to mislead.

Each test is an attack that once worked, or nearly did. What is changed in a sealed bucket is in test_ledger_verify.py.
"""

import asyncio
import base64
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
import zstandard
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.cli.common import print_table
from handlers.cli.main import cli
from tasks import keys
from tasks.access.signing import dump_ring
from tasks.audit import note, segment
from tasks.audit.faults import Kind
from tasks.audit.ledger import Leaf, State
from tasks.audit.prove import prove
from tasks.audit.read import Wanted, matching, read, search
from tasks.contracts.audit import Action
from tasks.contracts.base import canonical, sha256
from tasks.errors import IntegrityError, StoreError
from tasks.seal import ACTOR
from tasks.stores.folder import FolderObjectStore
from tasks.stores.objects import MemoryObjectStore, get_at_most
from tests.support import build
from tests.support.ledger import Ledger, filled, write

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def ledger() -> AsyncIterator[Ledger]:
    made = await filled()
    yield made
    await made.close()


def junk(ledger: Ledger, data: bytes, *, stream: str = "intent~evil~1", first: int = 0) -> str:
    key = keys.segment(stream, first, ledger.clock())
    ledger.memory.objects[key] = data
    return key


# Bombs --------------------------------------------------------------------------------------------------------


class Endless(MemoryObjectStore):
    """Has an object without an end."""

    served = 0

    async def read(self, key: str) -> AsyncIterator[bytes]:
        while key.startswith("audit/"):
            Endless.served += 1
            yield bytes(1 << 20)
        yield await self.get(key)


async def test_an_object_without_an_end_is_not_read_to_it() -> None:
    ledger = Ledger(Endless())
    await ledger.store.create(keys.segment("intent~evil~1", 0, ledger.clock()), b"")
    await ledger.seal()
    assert [fault.kind for fault in await ledger.faults()] == [Kind.ALTERED]
    assert await read(ledger.store, skipped=lambda key, reason: None) == []
    assert Endless.served < 40


async def test_get_at_most_says_that_there_is_more() -> None:
    store = MemoryObjectStore()
    await store.create("a", b"12345")
    assert [await get_at_most(store, "a", most) for most in (4, 5, 6)] == [b"12345", b"12345", b"12345"]
    assert await get_at_most(store, "a", 2) == b"123"


@pytest.mark.parametrize(
    "data",
    [
        zstandard.compress(b"\n" * segment.MOST_BYTES),
        zstandard.compress(bytes(segment.MOST_BYTES + 1)),
        os.urandom(segment.MOST_STORED + 1),
        zstandard.compress(b"{}\n{}\n") + zstandard.compress(b"more"),
        zstandard.compress(b"[" * 100_000 + b"\n[]\n"),
        b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd",
        b"",
    ],
    ids=["empty lines", "large", "stored", "two frames", "nested", "skippable frame", "nothing"],
)
def test_no_bomb_is_a_segment(data: bytes) -> None:
    with pytest.raises(segment.Broken):
        segment.unpack(data)


@pytest.mark.parametrize(
    "fields", [{"count": 10**10}, {"count": 10**30}, {"count": 0}, {"first": -5}, {"first": 10**30}]
)
async def test_a_header_that_counts_beyond_all_bounds_is_not_counted_after(
    ledger: Ledger, fields: dict[str, int]
) -> None:
    """What is wrong with records is said before the signature is looked at: no key is needed for this one."""
    key = ledger.listed()[0]
    found = segment.unpack(ledger.memory.objects[key])
    header = json.dumps({**orjson.loads(found.header_line), **fields}).encode()
    lines = [header, *found.lines, b'{"signature":"%s"}' % base64.b64encode(found.signature), b""]
    with pytest.raises(segment.Broken, match="counts what no segment has"):
        segment.check(key, zstandard.compress(b"\n".join(lines)), ledger.ring)


@pytest.mark.parametrize(
    "time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00.000Z", "1" * 5000, "24:61"]
)
async def test_a_time_that_no_calendar_has_stops_nobody(ledger: Ledger, time: str) -> None:
    broken = keys.checkpoint(3)
    text = ledger.memory.objects[broken].decode()
    line = next(line for line in text.split("\n") if line.startswith("time "))
    ledger.memory.objects[broken] = text.replace(line, f"time {time}").encode()
    with pytest.raises(IntegrityError):
        await ledger.sealer().run_once(force=True)
    assert (Kind.ALTERED, broken) in [(fault.kind, fault.object) for fault in await ledger.faults()]


async def test_a_record_or_a_key_of_no_calendars_time_stops_nobody(ledger: Ledger) -> None:
    line = canonical({**orjson.loads(build_line(ledger)), "time": "0001-01-01T00:00:00+14:00"})
    ancient = "audit/0001/01/01/00/0000.000~intent~h~9~000000000007.jsonl.zst"
    for key in (ancient, keys.segment("intent~h~9", 0, ledger.clock())):
        ledger.memory.objects[key] = segment.pack(
            [line], stream="intent~h~9", first=0, previous="0" * 64, time=ledger.clock(), signer=ledger.pools["intent"]
        )
    heard: list[str] = []
    assert len(await read(ledger.store, skipped=lambda key, reason: heard.append(reason))) == 34
    assert "outside of the years" in heard[-1]
    assert (Kind.INSERTED, ancient) in [(fault.kind, fault.object) for fault in await ledger.faults()]
    await ledger.seal()


def build_line(ledger: Ledger) -> bytes:
    return segment.unpack(ledger.memory.objects[ledger.listed()[0]]).lines[0]


async def test_bytes_after_the_frame_of_a_sealed_segment_are_found(ledger: Ledger) -> None:
    key = ledger.listed()[0]
    ledger.memory.objects[key] += b"\x00"
    assert (Kind.ALTERED, key) in [(fault.kind, fault.object) for fault in await ledger.faults()]


# Whatever stands where a value belongs: nobody but the two errors that are expected ---------------------------------

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**30, -(2**63), 2**64, 10**400, 1e308, -0.0]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=30),
    st.sampled_from(
        ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "\x00", "\ud800", "~", "intent~", "A" * 64]
    ),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
SAMPLE = asyncio.run(filled(rounds=2))


@given(st.integers(0, 3), st.integers(0, 20), ODD)
@settings(max_examples=400)
def test_no_value_in_a_segment_is_an_error_that_nobody_expects(line: int, place: int, odd: object) -> None:
    key = SAMPLE.listed()[0]
    body = zstandard.decompress(SAMPLE.memory.objects[key]).split(b"\n")
    fields = json.loads(body[line])
    name = sorted(fields)[place % len(fields)]
    body[line] = json.dumps({**fields, name: odd}, separators=(",", ":"), sort_keys=True).encode()
    with contextlib.suppress(segment.Broken):
        segment.check(key, zstandard.compress(b"\n".join(body)), SAMPLE.ring)
    with contextlib.suppress(segment.Broken):
        matching(key, segment.unpack(zstandard.compress(b"\n".join(body))), Wanted(), SAMPLE.ring)


@given(st.integers(0, 11), ODD, st.booleans())
@settings(max_examples=400)
def test_no_line_of_a_checkpoint_is_an_error_that_nobody_expects(line: int, odd: object, whole: bool) -> None:
    lines = SAMPLE.memory.objects[keys.checkpoint(1)].decode().split("\n")
    place = line % len(lines)
    lines[place] = str(odd) if whole else f"{lines[place].partition(' ')[0]} {odd}"
    with contextlib.suppress(IntegrityError):
        note.read("\n".join(lines).encode("utf-8", "surrogatepass"), SAMPLE.ring)


@given(st.binary(max_size=200))
def test_no_bytes_are_an_error_that_nobody_expects(data: bytes) -> None:
    for packed in (data, zstandard.compress(data)):
        with contextlib.suppress(segment.Broken):
            segment.unpack(packed)
    with contextlib.suppress(IntegrityError):
        note.read(data, SAMPLE.ring)
    with contextlib.suppress(IntegrityError):
        State.from_lines(data)


# Records that are not what they seem; these need a pool's key -------------------------------------------------


@pytest.mark.parametrize(
    "spelt",
    [b'"sequence":true,', b'"sequence":1.0,', b'"sequence":1,"sequence":1,', b'"sequence": 1,', b'"sequence":"1",'],
)
async def test_a_number_has_one_spelling(spelt: bytes) -> None:
    ledger = Ledger()
    await write(ledger.stream(), ["a", "b"])
    [key] = ledger.listed()
    found = segment.unpack(ledger.memory.objects[key])
    lines = [found.lines[0], found.lines[1].replace(b'"sequence":1,', spelt)]
    time, stream, first = keys.parse_segment(key)
    ledger.memory.objects[key] = segment.pack(
        lines, stream=stream, first=first, previous=found.header.previous, time=time, signer=ledger.pools["intent"]
    )
    [fault] = await ledger.faults()
    assert (fault.kind, fault.sequence) == (Kind.ALTERED, 1)


async def test_two_records_of_one_number_are_found() -> None:
    ledger = Ledger()
    await write(ledger.stream(), ["a", "b"])
    [key] = ledger.listed()
    found = segment.unpack(ledger.memory.objects[key])
    time, stream, first = keys.parse_segment(key)
    ledger.memory.objects[key] = segment.pack(
        [*found.lines, found.lines[1]],
        stream=stream,
        first=first,
        previous=found.header.previous,
        time=time,
        signer=ledger.pools["intent"],
    )
    [fault] = await ledger.faults()
    assert (fault.object, fault.sequence) == (key, 2)


@pytest.mark.parametrize("pool", ["door", "sealer", "intent+door", "responder"])
async def test_a_stream_renamed_to_another_pool_is_nobodys(pool: str) -> None:
    """A worker that was taken over signs for its own pool, whatever the stream is called."""
    ledger = Ledger()
    stream = ledger.stream(pool, signer=ledger.pools["intent"])
    await write(stream, ["a"])
    [fault] = await ledger.faults()
    assert fault.kind is Kind.BAD_SIGNATURE
    assert (await ledger.seal()).segments == 0


async def test_a_segment_dated_back_or_forth_is_not_taken_in(ledger: Ledger) -> None:
    """Its own pool signs it, in a stream of its own: the time in its key is not when it came."""
    stream = ledger.stream("intent", now=lambda: ledger.clock().replace(year=2029))
    await write(stream, ["a"])
    await ledger.seal()
    [fault] = await ledger.faults()
    assert (fault.kind, fault.stream) == (Kind.INSERTED, stream.name)


# Stopping the sealer ------------------------------------------------------------------------------------------


async def test_a_heap_of_junk_does_not_keep_the_rest_from_being_sealed(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of it than a checkpoint has room for, all in the time that a sealer looks back on."""
    monkeypatch.setattr("tasks.seal.MOST_LEAVES", 5)
    for number in range(50):
        junk(ledger, b"x", stream=f"intent~evil~{number}")
    ledger.clock.advance(1)
    stream = ledger.stream("door")
    await write(stream, ["a"])
    sealer = ledger.sealer()
    sealed = []
    for _ in range(30):
        ledger.clock.advance(1)
        one = await sealer.run_once(force=True)
        assert one
        sealed.append(one.segments)
    assert sum(sealed) == 1
    assert one.complete


async def test_junk_is_read_once(ledger: Ledger) -> None:
    key = junk(ledger, b"x")
    read_keys: list[str] = []

    class Watched(MemoryObjectStore):
        async def read(self, key: str) -> AsyncIterator[bytes]:
            read_keys.append(key)
            yield await self.get(key)

    store = Watched()
    store.objects = ledger.memory.objects
    sealer = ledger.sealer(store)
    for _ in range(3):
        await sealer.run_once(force=True)
    assert read_keys.count(key) == 1


@pytest.mark.parametrize("name", ["junk", "zzz", "00000000000x", "\uff10" * 11 + "\uff13", "0000000000001", "a/b"])
async def test_what_is_no_checkpoint_stops_no_sealer_and_is_named(ledger: Ledger, name: str) -> None:
    key = f"{keys.CHECKPOINTS}{name}"
    ledger.memory.objects[key] = ledger.memory.objects[keys.checkpoint(3)]
    assert (await ledger.seal()).number == 4
    [fault] = await ledger.faults(witness=ledger.witness)
    assert (fault.kind, fault.object) == (Kind.INSERTED, key)


@pytest.mark.parametrize("number", [4, 9])
async def test_a_squatted_checkpoint_is_told_and_can_be_taken_away(ledger: Ledger, number: int) -> None:
    """A lock keeps the squatter's object too; a delete marker over it is enough, and here it is as good as gone."""
    squatted = keys.checkpoint(number)
    ledger.memory.objects[squatted] = b"mine"
    audit = ledger.stream("sealer")
    sealer = ledger.sealer(audit=audit)
    ledger.clock.advance(60)
    for _ in range(2):
        with pytest.raises(IntegrityError):
            await sealer.run_once()
    await audit.commit()
    [told] = [record for record in await read(ledger.store) if record.action is Action.AUDIT_GAP]
    assert (told.actor, told.resource) == (ACTOR, keys.CHECKPOINTS)
    del ledger.memory.objects[squatted]
    assert (await ledger.seal()).number == 4
    assert (await ledger.verify(witness=ledger.witness)).ok


# Taking a segment's place -------------------------------------------------------------------------------------


class Squatted(MemoryObjectStore):
    """Somebody creates each stream's first segments a moment before it does."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    async def create(self, key: str, data: bytes) -> None:
        if key.startswith("audit/") and self.times:
            self.times -= 1
            self.objects[key] = b"squatter"
        await super().create(key, data)


async def test_records_are_not_given_up_where_somebody_took_their_place() -> None:
    ledger = Ledger(Squatted(2))
    stream = ledger.stream()
    first = stream.name
    await write(stream, ["a", "b"])
    assert stream.name != first
    found = await read(ledger.store, skipped=lambda key, reason: None)
    assert [(record.request_id, record.sequence) for record in found] == [("a", 0), ("b", 1)]


async def test_a_segment_whose_answer_was_lost_is_ours() -> None:
    class Forgetful(MemoryObjectStore):
        async def create(self, key: str, data: bytes) -> None:
            is_new = key not in self.objects
            await super().create(key, data)
            if is_new:
                raise StoreError("no answer")

    ledger = Ledger(Forgetful())
    stream = ledger.stream()
    await write(stream, ["a"])
    assert len(await read(ledger.store)) == 1


# Misleading who reads -----------------------------------------------------------------------------------------


async def test_junk_keeps_nobody_from_reading_searching_and_proving(ledger: Ledger) -> None:
    broken = junk(ledger, b"x")
    skipped: list[str] = []

    def hear(key: str, reason: str) -> None:
        skipped.append(key)

    assert len(await read(ledger.store, ring=ledger.ring, skipped=hear)) == 34
    assert len(await search(ledger.store, Wanted(action="request.accepted"), 5, skipped=hear)) == 5
    assert (await prove(ledger.store, ledger.ring, "r0-0-1", skipped=hear))["segments"]
    assert skipped == [broken] * 3
    with pytest.raises(IntegrityError, match="cannot be unpacked"):
        await read(ledger.store)


async def test_a_forged_segment_is_neither_shown_nor_in_the_way_of_a_proof(ledger: Ledger) -> None:
    """It is spelt well and signed by a stranger: to `show` it would tell another story of the request."""
    stranger = Ledger()
    await write(stranger.stream(host="evil"), ["r0-0-1"], clock=ledger.clock)
    ledger.memory.objects |= stranger.memory.objects
    skipped: list[str] = []
    shown = await read(
        ledger.store, request_id="r0-0-1", ring=ledger.ring, skipped=lambda key, reason: skipped.append(reason)
    )
    assert len(shown) == 1
    assert "no key" in skipped[0]
    proof = await prove(ledger.store, ledger.ring, "r0-0-1", skipped=lambda key, reason: None)
    assert len(proof["segments"]) == 1


async def test_a_record_that_cannot_be_read_hides_no_other(ledger: Ledger) -> None:
    """A pool's own key signs something that is no record."""
    line = canonical({"sequence": 0, "previous": "0" * 64, "stream": "intent~h~9", "request_id": "r0-0-1"})
    key = keys.segment("intent~h~9", 0, ledger.clock())
    ledger.memory.objects[key] = segment.pack(
        [line], stream="intent~h~9", first=0, previous="0" * 64, time=ledger.clock(), signer=ledger.pools["intent"]
    )
    skipped: list[str] = []
    found = await read(ledger.store, request_id="r0-0-1", skipped=lambda key, reason: skipped.append(key))
    assert len(found) == 1
    assert skipped == [key]


def checked(tmp_path: Path, proof: object, ledger: Ledger) -> subprocess.CompletedProcess[str]:
    (tmp_path / "proof.json").write_bytes(orjson.dumps(proof))
    (tmp_path / "ring.json").write_bytes(dump_ring(ledger.ring))
    command = [sys.executable, ROOT / "docs/check_inclusion.py", tmp_path / "proof.json", tmp_path / "ring.json"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


async def test_a_proof_of_nothing_proves_nothing(ledger: Ledger, tmp_path: Path) -> None:
    proof = await prove(ledger.store, ledger.ring, "r0-0-1")
    assert checked(tmp_path, proof, ledger).returncode == 0
    bare = {**proof, "segments": [{**proof["segments"][0], "records": {}}]}
    for forged in ({**proof, "segments": []}, bare):
        done = checked(tmp_path, forged, ledger)
        assert (done.returncode, done.stdout) == (1, "")
        assert "proves nothing" in done.stderr


def test_a_node_of_the_tree_is_no_leaf(ledger: Ledger) -> None:
    """RFC 6962 tells leaves from nodes, so no second preimage of a root is made of its inner hashes."""
    from tasks.audit.merkle import Tree, leaf_hash, node_hash

    tree, shorter = Tree(), Tree()
    a, b, c = (leaf_hash(name) for name in (b"a", b"b", b"c"))
    for leaf in (a, b, c):
        tree.append(leaf)
    for leaf in (leaf_hash(a + b), c):
        shorter.append(leaf)
    assert tree.root() != shorter.root()
    assert node_hash(a, b) != leaf_hash(a + b)


# The witness --------------------------------------------------------------------------------------------------


async def test_a_witness_that_lacks_checkpoints_is_no_comfort(ledger: Ledger) -> None:
    """Bucket and witness rolled back to one place agree; an empty folder agrees with everything."""
    assert (await ledger.verify(witness=ledger.witness)).caveats == []
    del ledger.witness.objects[keys.checkpoint(3)]
    [caveat] = (await ledger.verify(witness=ledger.witness)).caveats
    assert "the witness has not checkpoint 3:" in caveat
    [caveat] = (await ledger.verify(witness=MemoryObjectStore())).caveats
    assert "the witness has not checkpoints 0 to 3:" in caveat
    del ledger.witness.objects[keys.checkpoint(1)]
    assert len((await ledger.verify(witness=ledger.witness)).caveats) == 2


async def test_a_checkpoint_at_anothers_place_at_the_witness_is_found(ledger: Ledger) -> None:
    ledger.witness.objects[keys.checkpoint(4)] = ledger.witness.objects[keys.checkpoint(3)]
    [fault] = await ledger.faults(witness=ledger.witness)
    assert (fault.kind, fault.object) == (Kind.REORDERED, keys.checkpoint(4))


# Copies that can be read in part ------------------------------------------------------------------------------


async def test_a_copy_that_cannot_be_read_is_an_error_and_no_verdict(ledger: Ledger, tmp_path: Path) -> None:
    store = FolderObjectStore(tmp_path)
    for key, data in ledger.memory.objects.items():
        await store.create(key, data)
    assert (await ledger.verify(store)).ok
    name = ledger.listed()[0]
    file = tmp_path / name
    file.unlink()
    file.symlink_to(file)  # a circle: nobody can read it, root neither
    with pytest.raises(StoreError, match=name):
        await ledger.verify(store)
    file.unlink()
    file.mkdir()
    assert (Kind.MISSING, name) in [(fault.kind, fault.object) for fault in await ledger.faults(store)]


async def test_a_folder_that_leads_in_a_circle_ends(ledger: Ledger, tmp_path: Path) -> None:
    store = FolderObjectStore(tmp_path)
    for key, data in ledger.memory.objects.items():
        await store.create(key, data)
    (tmp_path / "audit" / "2030" / "again").symlink_to(tmp_path / "audit")
    [fault] = await ledger.faults(store)
    assert (fault.kind, fault.object) == (Kind.INSERTED, "audit/2030/again")


# What the stream makes of what it is given --------------------------------------------------------------------


async def test_no_caller_can_make_a_segment_that_no_verifier_accepts() -> None:
    ledger = Ledger()
    stream = ledger.stream()
    await stream.commit([build.event(reason="\U0001f600" * 100_000, details={"a": "x" * 100_000})] * 1500)
    await ledger.seal()
    report = await ledger.verify(witness=ledger.witness)
    assert report.faults == []
    assert report.records == 1500
    assert max(map(len, ledger.memory.objects.values())) < segment.MOST_STORED


async def test_a_text_that_is_no_unicode_is_recorded_all_the_same() -> None:
    """A model may answer with half a surrogate pair; the record counts more than the letter."""
    ledger = Ledger()
    await ledger.stream().commit([build.event(resource="t\ud800", reason="\udfff", details={"a\ud800": "b\ud800"})])
    [record] = await read(ledger.store)
    assert (record.resource, record.reason, record.details) == ("t?", "?", {"a?": "b?"})
    assert (await ledger.verify()).ok


def test_the_lines_of_the_tree_have_one_spelling() -> None:
    leaf = Leaf(key="k", count=1, last="l", object="o", closed=False)
    assert sha256(leaf.line) == sha256(canonical(orjson.loads(leaf.line)))


# The terminal of who reads ------------------------------------------------------------------------------------------


async def test_a_name_cannot_speak_for_the_verdict(ledger: Ledger, tmp_path: Path) -> None:
    """An object's name may have line ends and commands to a terminal in it."""
    evil = f"{keys.CHECKPOINTS}x\n\x1b[1A\x1b[2Kthe audit holds"
    store = FolderObjectStore(tmp_path)
    for key, data in {**ledger.memory.objects, evil: b"x"}.items():
        await store.create(key, data)
    (tmp_path / "ring.json").write_bytes(dump_ring(ledger.ring))
    command = ["audit", "verify", "--copy", str(tmp_path), "--ring", str(tmp_path / "ring.json")]
    done = await asyncio.to_thread(CliRunner().invoke, cli, command)
    assert "\\n\\x1b[1A\\x1b[2Kthe audit holds" in done.output
    assert "the audit holds" not in done.output.splitlines()
    assert "\x1b" not in done.output


def test_a_table_obeys_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("t", ("tenant",), [("acme\x1b]0;owned\x07[red]",), ("two\nlines",)])
    said = capsys.readouterr().out
    assert "acme\\x1b]0;owned\\x07[red]" in said
    assert "lines" in said.splitlines()[-2]
