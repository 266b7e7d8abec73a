"""One thing asked, as a hop reads it: the body that a door accepted, and what its message says of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from tasks.contracts.base import Contract, Identifier, Label, Tenant, UtcDatetime, to_utc
from tasks.contracts.words import (
    MAX_ATTACHMENTS,
    MAX_CALLBACK,
    MAX_KEY,
    MAX_MODEL,
    Priority,
    check_metadata,
    check_text,
)

ObjectKey = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_KEY)]


class Asked(Contract, frozen=True, kw_only=True):
    """A request between hops. ``id`` and ``traceparent`` are its message's: the body does not hold them.

    Fields that a newer door knows are ignored.
    """

    id: str = ""
    tenant: Tenant = "default"
    text: str
    session_id: Identifier | None = None
    attachments: Annotated[tuple[ObjectKey, ...], msgspec.Meta(max_length=MAX_ATTACHMENTS)] = ()
    intent: Label | None = None
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_MODEL)] | None = None
    priority: Priority = Priority.NORMAL
    deadline: UtcDatetime | None = None
    callback: Annotated[str, msgspec.Meta(pattern=r"\Ahttps?://", max_length=MAX_CALLBACK)] | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    traceparent: str | None = None

    def __post_init__(self) -> None:
        to_utc(self, "deadline")
        _named("text", check_text, self.text)
        if self.metadata:
            _named("metadata", check_metadata, self.metadata)


def _named(field: str, check: Callable[[Any], object], value: object) -> None:
    try:
        check(value)
    except ValueError as error:
        raise ValueError(f"{field} {error}") from error
