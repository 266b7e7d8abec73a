"""A segment: records of one stream, chained, compressed, signed once.

JSON lines in one zstd frame: a header, the records, a footer. The header names the stream, the first sequence number,
how many records follow, the hash of the record before them, and the digest: SHA-256 over the records' hashes, 32 bytes
each. The footer holds the Ed25519 signature of the header's line. So whoever has the records' hashes can check the
signature without seeing the records.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import orjson

from tasks import keys
from tasks.audit.faults import Kind
from tasks.contracts.audit import Action
from tasks.contracts.base import canonical
from tasks.errors import BadSignature

FORMAT: Final = "sluice-segment/1"
LEVEL: Final = 1
"""Of zstd. On records it is both the fastest and, from 40 records, the smallest; see docs/audit.md."""
MOST_BYTES: Final = 64 * 1024 * 1024
"""What a segment may hold when it is unpacked."""
MOST_STORED: Final = 8 * 1024 * 1024
"""What it may have as it is stored: far more than a stream writes, and little enough to read many at once."""
MOST_RECORDS: Final = 10_000
"""Lines that are looked at: each empty one would cost memory, and packs to nothing."""
_MOST_SEQUENCE: Final = 10**12
"""Keys have twelve digits for it."""


class Signer(Protocol):
    """What signs: see :class:`tasks.access.signing.Signer`."""

    @property
    def kid(self) -> str:
        """Return the id of the key."""

    @property
    def public(self) -> bytes:
        """Return its public half, 32 bytes."""

    def sign(self, data: bytes) -> bytes:
        """Return the signature of ``data``."""


class PublicKey(Protocol):
    """A key that is trusted."""

    @property
    def raw(self) -> bytes:
        """Return its 32 bytes."""


class Ring(Protocol):
    """Who may sign what: see :class:`tasks.access.signing.KeyRing`."""

    def verify(self, kid: str, data: bytes, signature: bytes, *, purpose: str) -> PublicKey:
        """Return the key of a valid signature; raises :class:`BadSignature`."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line. ``previous`` and ``digest`` are 64 hexadecimal digits; ``time`` is that of the key, in UTC."""

    count: int
    digest: str
    first: int
    format: str
    kid: str
    previous: str
    stream: str
    time: str

    @property
    def key(self) -> str:
        """Return where the segment belongs."""
        return keys.segment(self.stream, self.first, datetime.fromisoformat(self.time))


class Unpacked(NamedTuple):
    """The parts of a segment, not checked yet."""

    header: Header
    header_line: bytes
    signature: bytes
    lines: list[bytes]


class Broken(Exception):
    """A segment does not hold. ``sequence`` is that of the first record concerned, where it is known."""

    def __init__(self, kind: Kind, reason: str, sequence: int | None = None) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.sequence = sequence


class Content(NamedTuple):
    """What a segment that holds says: the hash before its records, that of its last, and whether it ends the stream."""

    header: Header
    last: str
    closed: bool


def pack(lines: Sequence[bytes], *, stream: str, first: int, previous: str, time: datetime, signer: Signer) -> bytes:
    """Return the segment of ``lines``. ``time`` is its key's."""
    import zstandard

    digest = sha256(b"".join([sha256(line).digest() for line in lines])).hexdigest()
    header = canonical(
        {
            "count": len(lines),
            "digest": digest,
            "first": first,
            "format": FORMAT,
            "kid": signer.kid,
            "previous": previous,
            "stream": stream,
            "time": f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03d}Z",
        }
    )
    footer = b'{"signature":"%s"}' % b64encode(signer.sign(header))
    return zstandard.ZstdCompressor(level=LEVEL).compress(b"\n".join([header, *lines, footer, b""]))


def unpack(data: bytes) -> Unpacked:
    """Return the parts of a segment; raises :class:`Broken`."""
    import zstandard

    if len(data) > MOST_STORED:
        raise Broken(Kind.ALTERED, "larger than any segment")
    try:
        size = zstandard.frame_content_size(data)
        if not 0 < size <= MOST_BYTES:
            raise Broken(Kind.ALTERED, "its size is not that of a segment")
        body = zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Broken(Kind.ALTERED, f"cannot be unpacked: {error}") from error
    count = body.count(b"\n")
    header_line, *lines, footer, end = body.split(b"\n") if 1 < count <= MOST_RECORDS + 2 else (b"", b"", b"")
    try:
        header = _HEADER.decode(header_line)
        signature = b64decode(orjson.loads(footer)["signature"], validate=True)
        spelt = footer == b'{"signature":"%s"}' % b64encode(signature)
    except (ValueError, KeyError, TypeError) as error:
        raise Broken(Kind.ALTERED, "no header and footer of a segment") from error
    # The diagnosis of what is wrong counts up to what the header says, before its signature is looked at.
    if not (0 <= header.first < _MOST_SEQUENCE and 0 < header.count <= MOST_RECORDS):
        raise Broken(Kind.ALTERED, "its header counts what no segment has")
    if end or not spelt or header.format != FORMAT or canonical(msgspec.structs.asdict(header)) != header_line:
        raise Broken(Kind.ALTERED, "not spelt as a segment is")
    return Unpacked(header, header_line, signature, lines)


def check(key: str, data: bytes, ring: Ring) -> Content:
    """Return what the segment at ``key`` says; raises :class:`Broken` unless place, signature and records hold."""
    return check_parts(key, unpack(data), ring)


def check_parts(key: str, found: Unpacked, ring: Ring) -> Content:
    """As :func:`check`, of what is unpacked already."""
    header = found.header
    last, closed = _check_records(found)
    purpose = f"audit:{keys.stream_component(header.stream)}"
    try:
        ring.verify(header.kid, found.header_line, found.signature, purpose=purpose)
    except BadSignature as error:
        raise Broken(Kind.BAD_SIGNATURE, f"{error} (stream {header.stream})", header.first) from error
    try:
        belongs = header.key
    except ValueError as error:
        raise Broken(Kind.ALTERED, f"its time is none: {error}", header.first) from error
    if belongs != key:
        raise Broken(Kind.REORDERED, f"this is the segment of {belongs}", header.first)
    return Content(header, last, closed)


_HEADER: Final = msgspec.json.Decoder(Header)


def _check_records(found: Unpacked) -> tuple[str, bool]:
    """Return the last record's hash, and whether it closes the stream."""
    header, expected, previous = found.header, found.header.first, found.header.previous
    digests = sha256()
    record: dict[str, Any] = {}
    for line in found.lines:
        try:
            record = orjson.loads(line)
            problem = (
                record["sequence"] != expected
                or type(record["sequence"]) is not int  # true is 1, and 1.0 too
                or record["previous"] != previous
                or record["stream"] != header.stream
                or orjson.dumps(record, option=orjson.OPT_SORT_KEYS) != line
            )
        except (ValueError, KeyError, TypeError):
            problem = True
        if problem:
            raise _diagnosis(found)
        digest = sha256(line).digest()
        digests.update(digest)
        previous = digest.hex()
        expected += 1
    if digests.hexdigest() != header.digest or len(found.lines) != header.count or not found.lines:
        raise _diagnosis(found)
    return previous, record.get("action") == Action.STREAM_CLOSED


def _diagnosis(found: Unpacked) -> Broken:
    """Say which record of a segment is wrong, and how."""
    header = found.header
    first, count = header.first, header.count
    numbers: list[int] = []
    for place, line in enumerate(found.lines):
        try:
            record = orjson.loads(line)
            number = record["sequence"]
            if record["stream"] != header.stream:
                return Broken(Kind.INSERTED, f"a record of stream {record['stream']}", first + place)
            if type(number) is not int or canonical(record) != line:
                return Broken(Kind.ALTERED, "a record that is not in canonical form", first + place)
        except (ValueError, KeyError, TypeError):
            return Broken(Kind.ALTERED, "a line that is no record", first + place)
        numbers.append(number)
    return _misnumbered(numbers, first, count) or _unchained(found)


def _misnumbered(numbers: list[int], first: int, count: int) -> Broken | None:
    wanted = list(range(first, first + count))
    if numbers == wanted:
        return None
    if absent := sorted(set(wanted) - set(numbers)):
        return Broken(Kind.MISSING, f"{len(absent)} of {count} records are not there", absent[0])
    place = next((at for at, number in enumerate(numbers) if number != first + at), count)
    if len(numbers) == count:
        return Broken(Kind.REORDERED, "records are not in their order", first + place)
    return Broken(Kind.INSERTED, "a record more than the header counts", numbers[min(place, len(numbers) - 1)])


def _unchained(found: Unpacked) -> Broken:
    previous, first = found.header.previous, found.header.first
    for place, line in enumerate(found.lines):
        if orjson.loads(line)["previous"] != previous:
            return Broken(Kind.ALTERED, "it is not the record that the next one names", max(first, first + place - 1))
        previous = sha256(line).hexdigest()
    return Broken(Kind.ALTERED, "the records are not those that were signed", first + len(found.lines) - 1)
