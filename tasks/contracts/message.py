"""What travels on a queue."""

from __future__ import annotations

import base64
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


_LEVEL: Final = 3


class Body(Contract, frozen=True, kw_only=True):
    """The request's canonical body: inline as JSON, inline compressed (base64), or in object storage.

    For ``object`` there is no address here: it is derived from tenant, id and digest. A step's message has no body
    (``plan``): what is to be done stands in the stored plan.
    """

    encoding: Literal["json", "zstd", "object", "plan"]
    data: str = always("")


class Message(Contract, frozen=True, kw_only=True):
    """One request, one ``step`` of its plan, or its callback, on its way to a pool. ``grant`` is the signed grant.

    ``callback``: the body names a URL that is to hear of the end. ``delivery``: this is that callback, on its way.
    """

    schema_version: str = always(SCHEMA_VERSION)
    id: Identifier
    tenant: Tenant
    revision: int = always(1)
    step: StepId | None = None
    delivery: bool | None = None
    digest: str
    grant: str | None = None
    body: Body
    priority: Priority = always(Priority.NORMAL)
    session_id: Identifier | None = None
    deadline: UtcDatetime | None = None
    callback: bool | None = None
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
    import zstandard

    packed = base64.b64encode(zstandard.ZstdCompressor(level=_LEVEL).compress(body)).decode()
    return Body(encoding="zstd", data=packed) if len(packed) <= inline_limit else Body(encoding="object")


def decode_body(body: Body) -> bytes:
    """Return the bytes of an inline body.

    Raises:
        MalformedMessage: it does not decode, or is larger than :data:`MAX_BODY_BYTES` once unpacked.
    """
    if body.encoding == "json":
        return body.data.encode()
    if body.encoding in {"object", "plan"}:
        raise MalformedMessage("this body lies in object storage")
    import zstandard

    try:
        packed = base64.b64decode(body.data, validate=True)
        # What the frame says of its size is all that is made room for; one that does not say it is not ours.
        if not 0 <= zstandard.frame_content_size(packed) <= MAX_BODY_BYTES:
            raise MalformedMessage(
                f"body is over {MAX_BODY_BYTES} bytes once unpacked, or does not say how large it is"
            )
        return zstandard.ZstdDecompressor().decompress(packed, allow_extra_data=False)
    except (zstandard.ZstdError, ValueError) as error:
        raise MalformedMessage(f"body does not decompress: {error}") from error
