"""The keys of the embedded stack: made on its first start, kept beside its data, readable by its owner alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import orjson

from tasks.access.commitments import new_key
from tasks.access.grants import NARROW, REVISE
from tasks.access.signing import (
    CHECKPOINT,
    GRANT,
    KeyRing,
    PublicKey,
    Scope,
    audit_purpose,
    dump_private,
    dump_ring,
    generate,
    parse_private,
    parse_ring,
)
from tasks.settings import SigningSettings

PRIVATE: Final = "private.json"
RING: Final = "ring.json"
CALLBACKS: Final = "callbacks.secret"

_ALL: Final = ("*",)
_SCOPES: Final = {
    # Whoever can read this folder owns the stack: the local key may ask for everything, in every tenant.
    "local": Scope(purposes=(GRANT, REVISE), tenants=_ALL, subjects=("local",), roles=("admin",)),
    "planner": Scope(purposes=(NARROW,), tenants=_ALL, subjects=_ALL, roles=_ALL),
    "audit": Scope(purposes=(audit_purpose("*"),)),
    "sealer": Scope(purposes=(CHECKPOINT,)),
}


def ensure(folder: Path) -> SigningSettings:
    """Make the keys in ``folder`` unless they are there; return the settings that name them."""
    private, ring = folder / PRIVATE, folder / RING
    if not (private.exists() and ring.exists()):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = {name: generate(name) for name in _SCOPES}
        write_private(private, dump_private(made.values()))
        public = [PublicKey(key.kid, key.public, _SCOPES[name]) for name, key in made.items()]
        write_private(ring, dump_ring(public))
    return SigningSettings(keys=(str(private),), ring=str(ring))


def ensure_callback_secret(folder: Path) -> Path:
    """Make what callbacks are signed with in ``folder`` unless it is there; return the file."""
    file = folder / CALLBACKS
    if not file.exists():
        write_private(file, new_key().encode())
    return file


def environment(settings: SigningSettings) -> dict[str, str]:
    """Return the variables that say what ``settings`` say."""
    return {
        "SLUICE_SIGNING__KEYS": orjson.dumps(settings.keys).decode(),
        "SLUICE_SIGNING__RING": settings.ring or "",
    }


def read(environment: Mapping[str, str]) -> SigningSettings:
    """Return what :func:`environment` spelt."""
    keys = tuple(orjson.loads(environment["SLUICE_SIGNING__KEYS"]))
    return SigningSettings(keys=keys, ring=environment["SLUICE_SIGNING__RING"])


def write_private(file: Path, data: bytes) -> None:
    """Write ``data`` whole or not at all, readable by the owner alone."""
    new = file.with_name(f"{file.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as output:
        output.write(data)
    new.replace(file)


def add(name: str, scope: Scope, *, private: Path, ring: Path) -> str:
    """Make a key of ``name`` and put it first in both files, which are made where they are not there; return its id.

    Raises:
        SettingsError: one of the files holds something else.
    """
    made = generate(name)
    own = parse_private(private.read_bytes(), str(private)) if private.exists() else []
    # The ring first: a private key that nobody trusts yet keeps its owner from starting.
    trust(PublicKey(made.kid, made.public, scope), ring)
    write_private(private, dump_private([made, *own]))
    return made.kid


def trust(key: PublicKey, ring: Path) -> None:
    """Put ``key`` first in the file ``ring``, which is made where it is not there.

    Raises:
        SettingsError: the key is in it already, or it holds something else.
    """
    public = list(parse_ring(ring.read_bytes(), str(ring))) if ring.exists() else []
    KeyRing([key, *public])
    write_private(ring, dump_ring([key, *public]))
