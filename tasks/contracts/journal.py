"""Tool calls that must not happen twice, and how they are named."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from tasks.contracts.base import SCHEMA_VERSION, Contract, always, canonical, sha256


def spelt(arguments: Any) -> bytes:
    """Return the one spelling of a tool call's arguments, also of what JSON from a model holds and ours does not."""
    try:
        return canonical(arguments)
    except TypeError:
        # Numbers beyond 64 bits, halves of characters.
        return json.dumps(arguments, sort_keys=True, separators=(",", ":"), default=str).encode()


class Scope(msgspec.Struct, frozen=True):
    """One step of one revision of a request. ``step`` is empty where the request is not one of a plan's steps."""

    tenant: str
    request_id: str
    revision: int = 1
    step: str = ""


class JournalKey(msgspec.Struct, frozen=True):
    """One tool call of a scope. ``digest`` is the SHA-256 of its canonical arguments.

    ``occurrence`` counts calls of this tool with these arguments, from 1: made twice on purpose, they are two.
    """

    scope: Scope
    tool: str
    digest: str
    occurrence: int = 1

    @property
    def idempotency_key(self) -> str:
        """Return what receivers get as ``Idempotency-Key``: 64 characters, the same whenever this call is made."""
        scope = self.scope
        parts = (scope.tenant, scope.request_id, scope.revision, scope.step, self.tool, self.digest, self.occurrence)
        return sha256(canonical(parts))


class CallBegun(Contract, frozen=True, kw_only=True):
    """A call is about to be made. ``holder`` tells a write of ours that was retried from another's."""

    schema_version: str = always(SCHEMA_VERSION)
    holder: str


class CallOutcome(Contract, frozen=True, kw_only=True):
    """A call has ended. ``text`` is what the agent read, ``ok`` whether that is a result.

    ``nothing_done`` holds for an error after which the call may be made anew.
    """

    schema_version: str = always(SCHEMA_VERSION)
    ok: bool = always(True)
    text: str = always("")
    nothing_done: bool = always(False)
