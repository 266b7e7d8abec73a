"""Request bodies: inline in the message while small, in object storage above that (claim check)."""

from __future__ import annotations

import contextlib

from tasks import keys
from tasks.contracts.base import parse_versioned
from tasks.contracts.message import Body, Message, decode_body, encode_body
from tasks.contracts.request import Request
from tasks.errors import AlreadyExists, MalformedMessage, NotFound
from tasks.stores.objects import ObjectStore


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

    async def unpack(self, message: Message) -> bytes:
        """Return the canonical body of ``message``; raises :class:`MalformedMessage` if there is none."""
        if message.body.encoding != "object":
            return decode_body(message.body)
        try:
            return await self._store.get(keys.body(message.tenant, message.id, message.digest))
        except NotFound as error:
            raise MalformedMessage(f"{message.id}: its body is not in object storage") from error


def to_request(message: Message, body: bytes) -> Request:
    """Return the request whose canonical body ``body`` is."""
    request = parse_versioned(Request, b'{"schema_version":"1.0",' + body[1:])
    return request.model_copy(update={"id": message.id, "traceparent": message.traceparent})
