"""Seals on what workers of agent pools keep in Redis for each other: signed with the key of their audit stream.

A key of their own would be one more to hand out, for something that is no more than a copy.
"""

from __future__ import annotations

from typing import Final

from tasks.access.signing import Keys, audit_purpose, decoded, encoded
from tasks.errors import IntegrityError, SettingsError

_CONTEXT: Final = b"sluice seal\n"
"""What is signed begins with this, so that a seal can be taken for nothing else that the key signs."""
_AGENTS: Final = "agents."


class AgentSeals:
    """Seals of a process that serves ``pools``; those of every process that serves an agent pool hold."""

    def __init__(self, keyset: Keys, pools: str) -> None:
        self._signer = keyset.signer(audit_purpose(pools))
        self._ring = keyset.ring
        self._pools = pools

    def seal(self, data: bytes) -> str:
        """Return the mark of ``data``."""
        return f"{self._pools} {self._signer.kid} {encoded(self._signer.sign(_CONTEXT + data))}"

    def holds(self, data: bytes, seal: str) -> bool:
        """Tell whether a process that serves an agent pool sealed ``data``."""
        try:
            pools, kid, signature = seal.split(" ")
            if not all(pool.startswith((_AGENTS, "intent")) for pool in pools.split("+")) or _AGENTS not in pools:
                return False
            self._ring.verify(kid, _CONTEXT + data, decoded(signature), purpose=audit_purpose(pools))
        except (ValueError, IntegrityError, SettingsError):
            return False
        return True
