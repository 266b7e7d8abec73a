"""One thing asked."""

from __future__ import annotations

import math
import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final

import uuid_utils
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

from tasks.contracts.base import (
    SCHEMA_VERSION,
    Identifier,
    StrictContract,
    Tenant,
    UtcDatetime,
    canonical,
    sha256,
)

MAX_TEXT_BYTES: Final = 32 * 1024
MAX_METADATA_BYTES: Final = 8 * 1024
MAX_ATTACHMENTS: Final = 16
_RESERVED_ID: Final = re.compile(r"\.r\d+$")


def new_id() -> str:
    """Return a fresh UUIDv7: ids sort by the time they were made."""
    return str(uuid_utils.uuid7())


class Intent(StrEnum):
    """What a request asks for."""

    PLAN_TASK = "plan_task"
    QUERY_DATA = "query_data"
    CALL_API = "call_api"
    ANSWER_QUESTION = "answer_question"
    SUMMARIZE_TEXT = "summarize_text"
    DRAFT_TEXT = "draft_text"
    TALK_TO_HUMAN = "talk_to_human"
    OUT_OF_SCOPE = "out_of_scope"


class Priority(StrEnum):
    """Which of the two queues of each pool a request takes."""

    NORMAL = "normal"
    HIGH = "high"


_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:")


def _check_deadline(value: object) -> object:
    if isinstance(value, datetime) or (isinstance(value, str) and _DATE.match(value)):
        return value
    raise ValueError("must be an RFC 3339 time with its offset, such as 2027-01-31T12:00:00Z")


def _check_numbers(value: JsonValue) -> None:
    """Refuse what JSON can not say, or not everybody can read: two bodies must not look the same."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            _check_numbers(item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("numbers must be finite")
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValueError("whole numbers must fit into 64 bits")


def _check_text(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty or blank")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise ValueError("is not valid Unicode (lone surrogate)") from error
    if size > MAX_TEXT_BYTES:
        raise ValueError(f"is {size} bytes, the limit is {MAX_TEXT_BYTES}: send the rest as an attachment")
    return text


def _check_id(value: str) -> str:
    if _RESERVED_ID.search(value):
        raise ValueError("must not end in .r and digits: that suffix names the later revisions of a result")
    return value


RequestId = Annotated[Identifier, AfterValidator(_check_id)]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=128)]
ObjectKey = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class Request(StrictContract):
    """What a producer asks for. Doors validate it strictly.

    ``id`` is a UUIDv7 or the producer's own idempotency key. ``text`` is 1 byte to 32 KiB of UTF-8.
    ``deadline`` is an aware time after which nobody wants the answer.
    """

    schema_version: str = SCHEMA_VERSION
    id: RequestId = Field(default_factory=new_id)
    tenant: Tenant = "default"
    text: Annotated[str, AfterValidator(_check_text)]
    session_id: Identifier | None = None
    attachments: tuple[ObjectKey, ...] = Field(default=(), max_length=MAX_ATTACHMENTS, strict=False)
    intent: Annotated[Intent, Field(strict=False)] | None = None
    model: ModelName | None = None
    priority: Annotated[Priority, Field(strict=False)] = Priority.NORMAL
    deadline: Annotated[UtcDatetime | None, Field(strict=False), BeforeValidator(_check_deadline)] = None
    callback: Annotated[AnyHttpUrl, UrlConstraints(max_length=2048)] | None = None
    traceparent: Annotated[str, StringConstraints(max_length=128)] | None = None
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
        _check_numbers(value)
        if len(canonical(value)) > MAX_METADATA_BYTES:
            raise ValueError(f"is over {MAX_METADATA_BYTES} bytes")
        return value

    def body(self) -> bytes:
        """Return the canonical bytes of what was asked: all but the id, the trace and the version."""
        return canonical(self._body_dict())

    def digest(self) -> str:
        """Return the SHA-256 of :meth:`body`: the same id with the same digest is the same request."""
        return sha256(self.body())

    def _body_dict(self) -> dict[str, Any]:
        return self.model_dump(
            mode="json",
            exclude={"id", "traceparent", "schema_version"},
            exclude_none=True,
            exclude_defaults=True,
        )
