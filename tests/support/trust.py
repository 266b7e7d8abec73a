"""Keys, grants and gates for tests whose matter is trust."""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from tasks.access.gate import SignedGate, open_gate
from tasks.access.grants import NARROW, Mint
from tasks.access.policy import Policy, load_policy
from tasks.access.revoked import RevocationList
from tasks.access.signing import GRANT, KeyRing, Keys, PublicKey, Scope, SigningKey, generate
from tasks.access.sources import load_keys
from tasks.contracts.base import utc_now
from tasks.contracts.request import Request
from tasks.settings import GrantSettings, Settings
from tasks.stores.revocations import MemoryRevocations
from tests.support import build

AUDIENCE = GrantSettings().audience


@cache
def policy() -> Policy:
    """The packaged policies, read once."""
    return load_policy()


def scope(**fields: Any) -> Scope:
    standard = {"purposes": (GRANT,), "tenants": ("*",), "subjects": ("alice",), "roles": ("user",)}
    return Scope(**{**standard, **fields})


def public(key: SigningKey, own: Scope | None = None) -> PublicKey:
    return PublicKey(key.kid, key.public, own or scope())


def keys(*scopes: Scope) -> Keys:
    """Keys of one process, by default one that may sign what ``alice`` asks for as a ``user``."""
    made = [(generate(f"key{number}"), own) for number, own in enumerate(scopes or (scope(),))]
    return Keys([key for key, _ in made], KeyRing(public(key, own) for key, own in made))


def mint(keyset: Keys, purpose: str = GRANT) -> Mint:
    signer = keyset.signer(purpose)
    return Mint(signer, keyset.public(signer), audience=AUDIENCE)


def token(minter: Mint, **fields: Any) -> str:
    """A grant that alice's key may sign."""
    asked = build.request()
    standard = {
        "subject": "alice",
        "tenant": "default",
        "roles": ("user",),
        "request_id": asked.id,
        "digest": asked.digest(),
        "now": build.EPOCH,
        "expires": build.EPOCH + timedelta(days=14),
    }
    return minter.mint(**{**standard, **fields})


def gate(
    keyset: Keys,
    now: Callable[[], datetime],
    *,
    revocations: MemoryRevocations | None = None,
    settings: GrantSettings | None = None,
    policies: Policy | None = None,
) -> SignedGate:
    chosen = settings or GrantSettings()
    listed = RevocationList(
        revocations or MemoryRevocations(), max_age=chosen.revocation_seconds, clock=lambda: now().timestamp()
    )
    return SignedGate(chosen, keys=keyset, policy=policies or policy(), revoked=listed, now=now)


def granted(settings: Settings, asked: Request) -> str | None:
    """The grant that this machine's own door would give ``asked``, with the keys that ``settings`` name."""
    made = open_gate(settings, keys=load_keys(settings), revocations=MemoryRevocations(), now=utc_now)
    return made.mint(asked, made.caller())


__all__ = ["AUDIENCE", "NARROW", "gate", "granted", "keys", "mint", "policy", "public", "scope", "token"]
