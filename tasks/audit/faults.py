"""What can be wrong with an audit trail, and the report of a verification."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """How the trail was changed."""

    ALTERED = "altered"
    MISSING = "missing"
    REORDERED = "reordered"
    INSERTED = "inserted"
    FORKED = "forked"
    TRUNCATED = "truncated tail"
    BAD_SIGNATURE = "bad signature"
    GAP = "gap between checkpoints"
    DELETED = "deleted"
    OVERWRITTEN = "overwritten"


@dataclass(frozen=True)
class Fault:
    """What is wrong with which object. ``stream`` and ``sequence`` where it concerns records."""

    kind: Kind
    object: str
    reason: str
    stream: str = ""
    sequence: int | None = None


@dataclass
class Verification:
    """What was read, what was found, and what cannot be excluded (``caveats``).

    ``segments`` and ``records`` were read; ``expired`` segments are gone by retention; ``unsealed`` ones are newer than
    the last checkpoint. ``faults`` holds the first :data:`MOST_FAULTS`; ``found`` counts all.
    """

    checkpoints: int = 0
    segments: int = 0
    records: int = 0
    expired: int = 0
    unsealed: int = 0
    found: int = 0
    faults: list[Fault] = field(default_factory=list)
    caveats: list[str] = field(default_factory=list)

    def add(self, fault: Fault) -> None:
        """Note a fault."""
        self.found += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(fault)

    @property
    def ok(self) -> bool:
        """Tell whether everything that was looked at holds."""
        return not self.found


MOST_FAULTS: Final = 1000
