"""The one place where grants are minted and verified.

Every door calls :meth:`Gate.mint`; every hop calls :meth:`Gate.verify` before it reads anything else. Until grants
are signed there is one gate, :class:`OpenGate`, which lets everybody in and vouches for nothing but the digest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tasks.contracts.base import sha256
from tasks.contracts.message import Message
from tasks.errors import MalformedMessage

if TYPE_CHECKING:
    from tasks.contracts.request import Request


class Gate(Protocol):
    """Mints and verifies grants."""

    def mint(self, request: Request, principal: str) -> str | None:
        """Return the grant that travels with ``request``, asked by ``principal``."""

    def verify(self, message: Message) -> str:
        """Return the principal that ``message`` speaks for; raise if its grant does not vouch for id and digest."""

    def verify_body(self, message: Message, body: bytes) -> None:
        """Raise :class:`MalformedMessage` if ``body`` is not the one that was granted."""


class OpenGate:
    """Signs nothing. Only the digest is checked."""

    def mint(self, request: Request, principal: str) -> str | None:
        """See :class:`Gate`."""
        return None

    def verify(self, message: Message) -> str:
        """See :class:`Gate`."""
        return f"tenant:{message.tenant}"

    def verify_body(self, message: Message, body: bytes) -> None:
        """See :class:`Gate`."""
        if sha256(body) != message.digest:
            raise MalformedMessage(f"{message.id}: the body does not match its digest")
