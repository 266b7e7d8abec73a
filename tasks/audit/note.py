"""Checkpoints: signed notes in the manner of C2SP (tlog-checkpoint, signed-note), one chain of them.

The first three lines are those of C2SP: origin, size of the tree, its root. The further lines are ours::

    sluice/audit/sluice-audit
    1234
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
    number 12
    time 2026-11-22T14:05:12.042Z
    previous <SHA-256 of the checkpoint before, whole>
    leaves <SHA-256 of the object that lists the segments that this one seals>
    state <SHA-256 of the object with the tree's frontier and the marks of open and just-closed streams>

    — checkpoint.0a1b2c3d4e5f <base64 of key hash and signature>
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

import msgspec

from tasks import keys
from tasks.audit.segment import Ring, Signer
from tasks.contracts.base import in_utc
from tasks.errors import BadSignature, IntegrityError

PURPOSE: Final = "checkpoint"
MOST_BYTES: Final = 64 * 1024
"""What a checkpoint may have. It has some 440."""
_SIGNATURE_TYPE: Final = b"\x01"
"""Ed25519, in C2SP's signed notes."""
_NAMES: Final = ("number", "time", "previous", "leaves", "state")


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint says. Hashes are 64 hexadecimal digits; ``time`` is in UTC, to the millisecond."""

    origin: str
    size: int
    root: str
    number: int
    time: datetime
    previous: str
    leaves: str
    state: str

    def text(self) -> bytes:
        """Return what is signed."""
        root = b64encode(bytes.fromhex(self.root)).decode()
        values = (self.number, spell(self.time), self.previous, self.leaves, self.state)
        own = [f"{name} {value}" for name, value in zip(_NAMES, values, strict=True)]
        return "\n".join([self.origin, str(self.size), root, *own, ""]).encode()


def spell(time: datetime) -> str:
    """Return ``time`` to the millisecond."""
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03d}Z"


def sign(checkpoint: Checkpoint, signer: Signer) -> bytes:
    """Return the note that is stored."""
    text = checkpoint.text()
    blob = _key_hash(signer.kid, signer.public) + signer.sign(text)
    return text + b"\n" + _signature_line(signer.kid, blob)


def read(note: bytes, ring: Ring) -> Checkpoint:
    """Return what a note says.

    Raises:
        BadSignature: nobody who may sign checkpoints signed it.
        IntegrityError: it is no checkpoint.
    """
    text, separator, last = note.rpartition(b"\n\n")
    try:
        checkpoint = _parse(text.decode())
        dash, kid, encoded = last.decode().rstrip("\n").split(" ")
        blob = b64decode(encoded, validate=True)
    except (ValueError, KeyError) as error:
        raise IntegrityError(f"no checkpoint: {error}") from error
    if not separator or dash != "—" or note != checkpoint.text() + b"\n" + _signature_line(kid, blob):
        raise IntegrityError("not spelt as a checkpoint is")
    key = ring.verify(kid, checkpoint.text(), blob[4:], purpose=PURPOSE)
    if blob[:4] != _key_hash(kid, key.raw):
        raise BadSignature(f"the key hash is not that of {kid!r}")
    return checkpoint


def _parse(text: str) -> Checkpoint:
    origin, size, root, *own = text.split("\n")
    fields = dict(line.split(" ", 1) for line in own)
    return Checkpoint(
        origin=origin,
        size=int(size),
        root=b64decode(root, validate=True).hex(),
        number=int(fields["number"]),
        time=_time(fields["time"]),
        previous=_digest(fields["previous"]),
        leaves=_digest(fields["leaves"]),
        state=_digest(fields["state"]),
    )


def _time(text: str) -> datetime:
    time = in_utc(datetime.fromisoformat(text))
    if time.year < keys.FIRST_YEAR:
        raise ValueError("a time before there were checkpoints")
    return time


def _digest(text: str) -> str:
    if len(text) != 64 or text.strip("0123456789abcdef"):
        raise ValueError("a digest has 64 hexadecimal digits")
    return text


def _signature_line(kid: str, blob: bytes) -> bytes:
    return f"— {kid} {b64encode(blob).decode()}\n".encode()


def _key_hash(kid: str, public: bytes) -> bytes:
    return sha256(kid.encode() + b"\n" + _SIGNATURE_TYPE + public).digest()[:4]
