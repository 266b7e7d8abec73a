"""One dead letter, as a person sees it: whose it is, why it lies there, and whether it can be redriven."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

import msgspec

from tasks import keys
from tasks.contracts.base import parse_versioned, sha256
from tasks.contracts.message import Message
from tasks.errors import MalformedMessage, NewerSchema
from tasks.stores.broker import Letter, opened

DEAD: Final = keys.DEAD_LETTERS
QUARANTINE: Final = keys.QUARANTINE
EVENTS: Final = "events"
"""The boxes: requests that used up their attempts, messages that no door wrote, events that are no request."""

EVERY_TENANT: Final = "*"
"""Whose a letter is that nobody vouches for: only a key for all tenants may handle it."""
_UNKNOWN: Final = "-"
_ID_DIGITS: Final = 12
_MAX_NAME: Final = 128


class Standing(StrEnum):
    """What has become of a letter's request.

    ``DEAD``: it failed, and can be redriven. ``REDRIVEN``: a later revision was opened. ``OPEN``: it has no result yet.
    ``ENDED``: it has another end than ``failed``. ``REFUSED``: no door wrote it. ``EVENT``: it never was a request.
    """

    DEAD = "dead"
    REDRIVEN = "redriven"
    OPEN = "open"
    ENDED = "ended"
    REFUSED = "refused"
    EVENT = "event"


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One letter of ``box``. ``digest`` is the SHA-256 of ``data``, what lies there; ``id`` is its beginning.

    ``tenant`` and ``request_id`` are what it says itself; nobody vouches for them where there is no ``message``.
    ``queued_at`` is in Unix seconds. ``attempts`` is None where nobody counted.
    """

    id: str
    digest: str
    box: str
    tag: str
    data: bytes
    standing: Standing
    tenant: str = ""
    request_id: str = ""
    revision: int | None = None
    pool: str = ""
    code: str = ""
    reason: str = ""
    attempts: int | None = None
    queued_at: float | None = None
    message: Message | None = None

    @property
    def owner(self) -> str:
        """Return the tenant whose operators may handle it."""
        return self.tenant if self.message is not None and self.standing is not Standing.REFUSED else EVERY_TENANT

    @property
    def asked(self) -> str:
        """Return the request that the audit names."""
        return self.request_id or _UNKNOWN

    def changed(self, **changes: Any) -> DeadLetter:
        """Return a copy with other values for these fields."""
        return msgspec.structs.replace(self, **changes)

    def told(self) -> dict[str, Any]:
        """Return what lists and JSON say of it."""
        hidden = {"tag", "data", "message"}
        return {name: value for name, value in msgspec.structs.asdict(self).items() if name not in hidden}


def read(box: str, letter: Letter) -> DeadLetter:
    """Return what ``letter`` says by itself. Junk is a letter too."""
    digest = sha256(letter.data)
    found = DeadLetter(
        id=digest[:_ID_DIGITS],
        digest=digest,
        box=box,
        tag=letter.tag,
        data=letter.data,
        standing=Standing.EVENT if box == EVENTS else Standing.REFUSED,
        reason=letter.reason,
    )
    if box == EVENTS:
        code, _, reason = letter.reason.partition(": ")
        return found.changed(code=code, reason=reason)
    raw, around = opened(letter.data), _around(letter.data)
    found = found.changed(
        queued_at=around.queued_at,
        reason=around.reason or letter.reason,
        tenant=str(raw.get("tenant", ""))[:_MAX_NAME],
        request_id=str(raw.get("id", ""))[:_MAX_NAME],
    )
    try:
        message = parse_versioned(Message, raw)
    except (MalformedMessage, NewerSchema) as error:
        return found.changed(code=error.code, reason=found.reason or str(error))
    return found.changed(
        code="quarantined" if box == QUARANTINE else "",
        tenant=message.tenant,
        request_id=message.id,
        revision=message.revision,
        pool=_pool(message),
        message=message if box == DEAD else None,
        standing=Standing.OPEN if box == DEAD else Standing.REFUSED,
    )


def _pool(message: Message) -> str:
    if message.delivery:
        return keys.CALLBACK_POOL
    return keys.agent_pool(message.agent_type) if message.agent_type else keys.INTENT_POOL


class _Around(msgspec.Struct, frozen=True):
    """What stands around the message on a queue."""

    queued_at: float | None = None
    reason: str = ""


def _around(data: bytes) -> _Around:
    try:
        return msgspec.json.decode(data, type=_Around)
    except (ValueError, RecursionError):
        return _Around()
