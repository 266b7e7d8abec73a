"""Keys of the audit bucket, and the names of streams."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final, NamedTuple

AUDIT_PREFIX: Final = "audit/"
FIRST_YEAR: Final = 2000
"""Nothing is older: a time near the first year that a calendar knows cannot be looked back from."""
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9.-]")
_SEGMENT: Final = re.compile(
    r"audit/([2-9][0-9]{3})/([0-9]{2})/([0-9]{2})/([0-9]{2})/([0-9]{2})([0-9]{2})\.([0-9]{3})"
    r"~([A-Za-z0-9._+~-]+)~([0-9]{12})\.jsonl\.zst"
)
CHECKPOINTS: Final = "checkpoints/"
_CHECKPOINT: Final = re.compile(r"checkpoints/([0-9]{12})")
LEDGER: Final = "ledger/"


def stream(component: str, host: str, boot: str) -> str:
    """Return the name of a process's audit stream: pool (or pools, by ``+``), host, and an id of its own."""
    return f"{component}~{_UNSAFE.sub('-', host)}~{boot}"


def stream_component(stream_name: str) -> str:
    """Return whose key may sign for a stream: the pool (or pools, by ``+``), ``door``, ``sweeper``, ``sealer``."""
    return stream_name.partition("~")[0]


def segment(stream_name: str, first_sequence: int, time: datetime) -> str:
    """Return the key of an audit segment in the audit bucket. Keys sort by time, to the millisecond of UTC."""
    moment = f"{time:%Y/%m/%d/%H/%M%S}.{time.microsecond // 1000:03d}"
    return f"{AUDIT_PREFIX}{moment}~{stream_name}~{first_sequence:012d}.jsonl.zst"


def segment_after(time: datetime) -> str:
    """Return what sorts just before every segment of ``time`` and later."""
    return f"{AUDIT_PREFIX}{time:%Y/%m/%d/%H/%M%S}.{time.microsecond // 1000:03d}"


class SegmentKey(NamedTuple):
    """What a segment's key says."""

    time: datetime
    stream: str
    first: int


def parse_segment(key: str) -> SegmentKey:
    """Return the parts of a segment's key; raises :class:`ValueError` where it is none."""
    found = _SEGMENT.fullmatch(key)
    if not found:
        raise ValueError(f"{key!r} is not the key of a segment")
    time = datetime(*map(int, found.group(*range(1, 7))), int(found[7]) * 1000, tzinfo=UTC)  # type: ignore[misc,arg-type]
    return SegmentKey(time, found[8], int(found[9]))


def checkpoint(number: int) -> str:
    """Return the key of a checkpoint, in the audit bucket and at the witness."""
    return f"{CHECKPOINTS}{number:012d}"


def parse_checkpoint(key: str) -> int | None:
    """Return the number that ``key`` has among the checkpoints, None where it is the key of none."""
    found = _CHECKPOINT.fullmatch(key)
    return int(found[1]) if found else None


def leaves(number: int, digest: str) -> str:
    """Return the key of the list of the segments that checkpoint ``number`` sealed."""
    return f"{LEDGER}{number:012d}-leaves-{digest}.zst"


def ledger_state(number: int, digest: str) -> str:
    """Return the key of the tree's frontier and the marks of streams at checkpoint ``number``."""
    return f"{LEDGER}{number:012d}-state-{digest}.zst"
