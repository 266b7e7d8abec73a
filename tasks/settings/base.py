"""What every section of the settings is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Self

import msgspec

EMBEDDED: Final = "embedded"
"""The model name that means: the embedded small model where it runs, else the extractive responder."""

Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Family = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_-]{0,62}\Z")]
"""The name of a line of versions of an intent model."""

Place = tuple[str, ...]
"""Where a key is: the keys that lead to it, itself the last. Empty: the settings as a whole."""
Problem = tuple[Place, str]
"""Where a fault is, and the whole sentence about it."""


class Contradiction(ValueError):
    """Keys that are right by themselves and do not go together: ``problems`` are where, and what."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(text for _, text in problems))
        self.problems = tuple(problems)


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A frozen part of the settings. Types and bounds are checked where one is read, not where one is constructed."""

    def changed(self, **fields: Any) -> Self:
        """Return a copy with other values."""
        return msgspec.structs.replace(self, **fields)
