"""Request bodies: inline in the message while small, in object storage above that (claim check)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import msgspec

from tasks import keys
from tasks.contracts.asked import Asked
from tasks.contracts.base import told
from tasks.contracts.message import MAX_STORED_BYTES, Body, Message, decode_body, encode_body
from tasks.errors import AlreadyExists, ForgedMessage, MalformedMessage, NotFound
from tasks.stores.objects import ObjectStore, get_at_most

if TYPE_CHECKING:
    from tasks.contracts.request import Request

_REPEATED: Final = ("tenant", "session_id", "priority", "deadline")
"""What a message says of its body, which is what the grant vouches for."""
_ASKED: Final = msgspec.json.Decoder(Asked)


class BodyStore:
    """Bodies of all tenants in one bucket. A large one lies where tenant, id and digest say."""

    def __init__(self, store: ObjectStore, *, inline_bytes: int) -> None:
        self._store = store
        self._inline_bytes = inline_bytes

    async def pack(self, request: Request, digest: str) -> Body:
        """Return the body as it travels; a large one is durable in object storage before this returns."""
        raw = request.body()
        body = encode_body(raw, self._inline_bytes)
        if body.encoding == "object":
            # There already: the same body, by its digest, from an earlier try.
            with contextlib.suppress(AlreadyExists):
                await self._store.create(keys.body(request.tenant, request.id, digest), raw)
        return body

    async def unpack(self, message: Message) -> bytes | None:
        """Return the canonical body of ``message``, None if it should lie in object storage and does not.

        Raises:
            MalformedMessage: it is inline and does not decode.
        """
        if message.body.encoding != "object":
            return decode_body(message.body)
        try:
            key = keys.body(message.tenant, message.id, message.digest)
            return await get_at_most(self._store, key, MAX_STORED_BYTES)
        except NotFound:
            return None


def to_request(message: Message, body: bytes) -> Asked:
    """Return the request whose canonical body ``body`` is; fields that a newer door knows are ignored.

    Raises:
        MalformedMessage: it is no request's body; the message names the field.
    """
    try:
        asked = _ASKED.decode(body)
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(f"{message.id}: {told(error)}") from error
    # It is new and nobody else has it; a copy would check the text again.
    msgspec.structs.force_setattr(asked, "id", message.id)
    msgspec.structs.force_setattr(asked, "traceparent", message.traceparent)
    return asked


def demand_same(message: Message, asked: Asked) -> None:
    """Raise :class:`ForgedMessage` where ``message`` says otherwise than its body, from which ``asked`` was read."""
    for field in _REPEATED:
        if getattr(asked, field) != getattr(message, field):
            raise ForgedMessage(f"{message.id}: {field}: is not that of the body that was granted")
    if message.callback and asked.callback is None:
        raise ForgedMessage(f"{message.id}: callback: is not that of the body that was granted")
