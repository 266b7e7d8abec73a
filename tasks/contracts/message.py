"""What travels on a queue."""

from __future__ import annotations

import base64
import zlib
from typing import Final, Literal

from tasks.contracts.base import SCHEMA_VERSION, Contract, Identifier, Tenant, UtcDatetime, always, to_utc
from tasks.contracts.plan import StepId
from tasks.contracts.result import IntentInfo
from tasks.contracts.words import Priority
from tasks.errors import MalformedMessage

COMPRESS_ABOVE: Final = 1024
"""Bytes of a body above which it is compressed."""
MAX_BODY_BYTES: Final = 512 * 1024
"""Bytes that a body in a message may have after decompression: a larger one travels by object storage."""
MAX_STORED_BYTES: Final = 8 * 1024 * 1024
"""Bytes that a body in object storage may have: above the largest valid request, in whatever way it is spelt."""


class Body(Contract, frozen=True, kw_only=True):
    """The request's canonical body: inline as JSON, inline compressed, or in object storage.

    For ``object`` there is no address here: it is derived from tenant, id and digest. A step's message has no body
    (``plan``): what is to be done stands in the stored plan.
    """

    encoding: Literal["json", "zlib", "object", "plan"]
    data: str = always("")


class Message(Contract, frozen=True, kw_only=True):
    """One request, or one ``step`` of its plan, on its way to a pool. ``grant`` is the signed grant."""

    schema_version: str = always(SCHEMA_VERSION)
    id: Identifier
    tenant: Tenant
    revision: int = always(1)
    step: StepId | None = None
    digest: str
    grant: str | None = None
    body: Body
    priority: Priority = always(Priority.NORMAL)
    session_id: Identifier | None = None
    deadline: UtcDatetime | None = None
    traceparent: str | None = None
    accepted_at: UtcDatetime
    agent_type: str | None = None
    fallback_from: str | None = None
    fallback_code: str | None = None
    intent: IntentInfo | None = None
    routed_at: UtcDatetime | None = None
    classify_ms: float | None = None

    def __post_init__(self) -> None:
        to_utc(self, "accepted_at", "deadline", "routed_at")

    def to_json(self) -> str:
        """Return the JSON text that is published."""
        return self.to_bytes().decode()


def encode_body(body: bytes, inline_limit: int) -> Body:
    """Return ``body`` as it travels. Over ``inline_limit`` encoded bytes the caller must store it as an object."""
    if len(body) <= COMPRESS_ABOVE:
        return Body(encoding="json", data=body.decode())
    if len(body) > MAX_BODY_BYTES:
        return Body(encoding="object")
    packed = base64.b64encode(zlib.compress(body, 6)).decode()
    return Body(encoding="zlib", data=packed) if len(packed) <= inline_limit else Body(encoding="object")


def decode_body(body: Body) -> bytes:
    """Return the bytes of an inline body.

    Raises:
        MalformedMessage: it does not decode, or is larger than :data:`MAX_BODY_BYTES` once unpacked.
    """
    if body.encoding == "json":
        return body.data.encode()
    if body.encoding in {"object", "plan"}:
        raise MalformedMessage("this body lies in object storage")
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(base64.b64decode(body.data, validate=True), MAX_BODY_BYTES)
    except (zlib.error, ValueError) as error:
        raise MalformedMessage(f"body does not decompress: {error}") from error
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise MalformedMessage(f"body is truncated or over {MAX_BODY_BYTES} bytes")
    return raw
