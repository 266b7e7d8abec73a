"""One thing asked, as a door reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, Final, Self

from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    BeforeValidator,
    Field,
    JsonValue,
    StringConstraints,
    UrlConstraints,
    field_validator,
)

from tasks.contracts.base import SCHEMA_VERSION, canonical, sha256
from tasks.contracts.strict import Identifier, Label, StrictContract, Tenant, UtcDatetime
from tasks.contracts.words import (
    MAX_ATTACHMENTS,
    MAX_CALLBACK,
    MAX_KEY,
    MAX_MODEL,
    MAX_TRACEPARENT,
    Priority,
    check_metadata,
    check_text,
    new_id,
)

_RESERVED_ID: Final = re.compile(r"\.r\d+$")
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:")


def _check_deadline(value: object) -> object:
    if isinstance(value, datetime) or (isinstance(value, str) and _DATE.match(value)):
        return value
    raise ValueError("must be an RFC 3339 time with its offset, such as 2027-01-31T12:00:00Z")


def _check_id(value: str) -> str:
    if _RESERVED_ID.search(value):
        raise ValueError("must not end in .r and digits: that suffix names the later revisions of a result")
    return value


RequestId = Annotated[Identifier, AfterValidator(_check_id)]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_MODEL)]
ObjectKey = Annotated[str, StringConstraints(min_length=1, max_length=MAX_KEY)]


class Request(StrictContract):
    """What a producer asks for. Doors validate it strictly.

    ``id`` is a UUIDv7 or the producer's own idempotency key. ``text`` is 1 byte to 1 MiB of UTF-8.
    ``deadline`` is an aware time after which nobody wants the answer.
    """

    schema_version: str = SCHEMA_VERSION
    id: RequestId = Field(default_factory=new_id)
    tenant: Tenant = "default"
    text: Annotated[str, AfterValidator(check_text)]
    session_id: Identifier | None = None
    attachments: tuple[ObjectKey, ...] = Field(default=(), max_length=MAX_ATTACHMENTS, strict=False)
    intent: Label | None = None
    model: ModelName | None = None
    priority: Annotated[Priority, Field(strict=False)] = Priority.NORMAL
    deadline: Annotated[UtcDatetime | None, Field(strict=False), BeforeValidator(_check_deadline)] = None
    callback: Annotated[AnyHttpUrl, UrlConstraints(max_length=MAX_CALLBACK)] | None = None
    traceparent: Annotated[str, StringConstraints(max_length=MAX_TRACEPARENT)] | None = None
    metadata: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("schema_version")
    @classmethod
    def _known_version(cls, value: str) -> str:
        if value.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
            raise ValueError(f"is not a version of this door, which speaks {SCHEMA_VERSION}")
        return value

    @field_validator("metadata")
    @classmethod
    def _bounded_metadata(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        check_metadata(value)
        return value

    def body(self) -> bytes:
        """Return the canonical bytes of what was asked: all but the id, the trace and the version."""
        return self._spelt[0]

    def digest(self) -> str:
        """Return the SHA-256 of :meth:`body`: the same id with the same digest is the same request."""
        return self._spelt[1]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """See pydantic. The copy spells its own body."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("_spelt", None)
        return copied

    @cached_property
    def _spelt(self) -> tuple[bytes, str]:
        body = canonical(
            self.model_dump(
                mode="json",
                exclude={"id", "traceparent", "schema_version"},
                exclude_none=True,
                exclude_defaults=True,
            )
        )
        return body, sha256(body)
