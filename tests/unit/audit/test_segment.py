"""A segment is signed once and checked record by record: what is wrong is named, with its sequence and kind."""

from collections.abc import Callable

import orjson
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tasks import keys
from tasks.access.signing import KeyRing, generate
from tasks.audit import segment
from tasks.audit.faults import Kind
from tasks.audit.segment import Broken
from tasks.contracts.audit import GENESIS
from tasks.contracts.base import canonical, sha256
from tests.support import build
from tests.support.ledger import public

Lines = list[bytes]
STREAM = keys.stream("intent", "h1", "b1")
SIGNER = generate("intent")
RING = KeyRing([public(SIGNER, "audit:intent"), public(generate("responder"), "audit:responder")])
KEY = keys.segment(STREAM, 5, build.EPOCH)


def record(sequence: int, previous: str, **fields: object) -> bytes:
    return canonical({"action": "x", "previous": previous, "sequence": sequence, "stream": STREAM, **fields})


def chained(count: int, first: int = 5, previous: str = GENESIS) -> Lines:
    lines: Lines = []
    for sequence in range(first, first + count):
        lines.append(record(sequence, previous))
        previous = sha256(lines[-1])
    return lines


def packed(lines: Lines, **fields: object) -> bytes:
    standard = {"stream": STREAM, "first": 5, "previous": GENESIS, "time": build.EPOCH, "signer": SIGNER}
    return segment.pack(lines, **{**standard, **fields})  # type: ignore[arg-type]


def tampered(edit: Callable[[Lines], Lines], count: int = 5) -> bytes:
    """Edit the records, and leave header and footer as they were."""
    return repacked(lambda parts: [parts[0], *edit(parts[1:-2]), *parts[-2:]], count)


def repacked(edit: Callable[[Lines], Lines], count: int = 5) -> bytes:
    body = zstandard.ZstdDecompressor().decompress(packed(chained(count)))
    return zstandard.ZstdCompressor().compress(b"\n".join(edit(body.split(b"\n"))))


def altered(line: bytes) -> bytes:
    return canonical({**orjson.loads(line), "action": "y"})


def test_what_was_packed_is_checked_and_read() -> None:
    lines = chained(3)
    content = segment.check(KEY, packed(lines), RING)
    assert (content.header.count, content.header.previous, content.last) == (3, GENESIS, sha256(lines[-1]))
    assert not content.closed
    assert segment.unpack(packed(lines)).lines == lines


def test_a_segment_that_ends_its_stream_says_so() -> None:
    assert segment.check(KEY, packed([record(5, GENESIS, action="stream.closed")]), RING).closed


@pytest.mark.parametrize(
    ("edit", "kind", "sequence"),
    [
        (lambda lines: [altered(lines[0]), *lines[1:]], Kind.ALTERED, 5),
        (lambda lines: [*lines[:2], altered(lines[2]), *lines[3:]], Kind.ALTERED, 7),
        (lambda lines: [*lines[:4], altered(lines[4])], Kind.ALTERED, 9),
        (lambda lines: [*lines[:2], *lines[3:]], Kind.MISSING, 7),
        (lambda lines: lines[1:], Kind.MISSING, 5),
        (lambda lines: lines[:-1], Kind.MISSING, 9),
        (lambda _: [], Kind.MISSING, 5),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], Kind.REORDERED, 6),
        (lambda lines: [*lines, lines[-1]], Kind.INSERTED, 9),
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], Kind.INSERTED, 6),
        (lambda lines: [*lines[:2], record(7, GENESIS, stream="other"), *lines[3:]], Kind.INSERTED, 7),
        (lambda lines: [lines[0], lines[1].replace(b'":', b'": '), *lines[2:]], Kind.ALTERED, 6),
        (lambda lines: [*lines[:3], b"{", *lines[4:]], Kind.ALTERED, 8),
        (lambda lines: [*lines[:3], b"[]", *lines[4:]], Kind.ALTERED, 8),
        (lambda lines: [*lines[:3], b"\xff", *lines[4:]], Kind.ALTERED, 8),
        (lambda lines: [*lines[:3], record("8", GENESIS), *lines[4:]], Kind.ALTERED, 8),  # type: ignore[arg-type]
    ],
)
def test_a_record_that_was_changed_is_named(edit: Callable[[Lines], Lines], kind: Kind, sequence: int) -> None:
    with pytest.raises(Broken) as broken:
        segment.check(KEY, tampered(edit), RING)
    assert (broken.value.kind, broken.value.sequence) == (kind, sequence)


@pytest.mark.parametrize(
    "edit",
    [
        lambda parts: parts[1:],
        lambda parts: [*parts[:-2], b""],
        lambda parts: [*parts, b""],
        lambda parts: [parts[0].replace(b":", b": "), *parts[1:]],
        lambda parts: [parts[0].replace(b"segment/1", b"segment/2"), *parts[1:]],
        lambda parts: [*parts[:-2], parts[-2].replace(b":", b": "), b""],
        lambda _: [b""],
        lambda _: [b"{}", b"{}", b""],
    ],
)
def test_what_is_not_spelt_as_a_segment_is_altered(edit: Callable[[Lines], Lines]) -> None:
    with pytest.raises(Broken) as broken:
        segment.check(KEY, repacked(edit), RING)
    assert broken.value.kind in {Kind.ALTERED, Kind.MISSING}


@pytest.mark.parametrize("data", [b"", b"x", b"\x28\xb5\x2f\xfd", packed(chained(2)) + b"x"])
def test_what_is_no_frame_is_altered(data: bytes) -> None:
    with pytest.raises(Broken) as broken:
        segment.check(KEY, data, RING)
    assert broken.value.kind is Kind.ALTERED


def test_a_frame_that_would_fill_the_memory_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "MOST_BYTES", 1000)
    with pytest.raises(Broken, match="size"):
        segment.check(KEY, zstandard.ZstdCompressor().compress(bytes(1_000_000)), RING)


@pytest.mark.parametrize("stream", ["responder~h1~b1", "intent+responder~h1~b1"])
def test_a_key_signs_for_its_own_pool_only(stream: str) -> None:
    line = canonical({"previous": GENESIS, "sequence": 5, "stream": stream})
    with pytest.raises(Broken, match="may not sign") as broken:
        segment.check(keys.segment(stream, 5, build.EPOCH), packed([line], stream=stream), RING)
    assert broken.value.kind is Kind.BAD_SIGNATURE


def test_a_signature_by_nobody_known_is_bad() -> None:
    with pytest.raises(Broken, match="no key") as broken:
        segment.check(KEY, packed(chained(1), signer=generate("stranger")), RING)
    assert broken.value.kind is Kind.BAD_SIGNATURE


def test_a_segment_elsewhere_is_not_where_it_belongs() -> None:
    with pytest.raises(Broken, match="this is the segment of") as broken:
        segment.check(keys.segment(STREAM, 6, build.EPOCH), packed(chained(1)), RING)
    assert broken.value.kind is Kind.REORDERED


@given(st.integers(0, 10_000), st.data())
def test_no_bit_can_be_flipped(seed: int, data: st.DataObject) -> None:
    whole = bytearray(packed(chained(1 + seed % 4)))
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    try:
        content = segment.check(KEY, bytes(whole), RING)
    except Broken:
        return
    # A few bits of a frame say nothing about its content; a sealed segment has the digest of its bytes as well.
    assert content.last == sha256(chained(1 + seed % 4)[-1])
