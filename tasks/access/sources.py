"""Where keys come from: a file, the environment, AWS Secrets Manager, or AWS KMS, which signs and shows no key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

from tasks.access.signing import (
    KeyRing,
    Keys,
    PublicKey,
    Scope,
    Signer,
    generate,
    kid_of,
    parse_private,
    parse_ring,
)
from tasks.errors import NotReady, SettingsError
from tasks.stores.secrets import Client, asked, aws_client, secret

if TYPE_CHECKING:
    from tasks.settings import Settings

HOW: Final = (
    "make keys with `sluice keys new` and name them in signing.keys and signing.ring of pipeline.yaml "
    "(`sluice up` does both for the embedded stack), or set grants.mode: open on a machine for development"
)
_SPKI_ED25519: Final = bytes.fromhex("302a300506032b6570032100")
"""What stands before the 32 bytes of an Ed25519 key in the DER that KMS answers with (RFC 8410)."""


def load_keys(settings: Settings, *, environ: Mapping[str, str] | None = None, client: Client | None = None) -> Keys:
    """Return what this process signs with and whom it trusts.

    Where ``grants.mode`` is ``open`` and no keys are named, they are made here, and nobody else knows them.

    Raises:
        NotReady: no keys are named, or they cannot be had; the message says how to make them.
        SettingsError: what was found is no key set.
    """
    signing = settings.signing
    if signing.ring is None:
        if settings.grants.mode == "open" and not signing.keys:
            return throwaway()
        raise NotReady(f"signing.ring: no keys are configured, and grants.mode is {settings.grants.mode!r}: {HOW}")
    surroundings = os.environ if environ is None else environ
    ring = load_ring(signing.ring, environ=surroundings, client=client)
    signers: list[Signer] = []
    for source in signing.keys:
        if source.startswith("kms://"):
            signers.append(KmsSigner(source, client or aws_client))
        else:
            signers += parse_private(read(source, surroundings, client or aws_client), source)
    return Keys(signers, ring)


def throwaway() -> Keys:
    """Return keys that may sign everything, are trusted by nobody else, and end with this process."""
    made = generate("throwaway")
    everything = Scope(purposes=("*",), tenants=("*",), subjects=("local", "*"), roles=("admin", "*"))
    return Keys([made], KeyRing([PublicKey(made.kid, made.public, everything)]))


def load_ring(source: str, *, environ: Mapping[str, str] | None = None, client: Client | None = None) -> KeyRing:
    """Return the public keys that lie at ``source``; errors as in :func:`load_keys`."""
    surroundings = os.environ if environ is None else environ
    return parse_ring(read(source, surroundings, client or aws_client), source)


def read(source: str, environ: Mapping[str, str], client: Client) -> bytes:
    """Return what lies at ``source``.

    ``env:NAME``, ``secretsmanager://REGION/NAME`` (the region may be empty), ``file:///PATH`` or a path.

    Raises:
        NotReady: it cannot be read.
    """
    if "{" in source:
        # Not repeated: it may be a private key, and errors go to logs.
        raise SettingsError(
            "signing: there is a key set where its address belongs: put it into a variable, name env:NAME"
        )
    if source.startswith("env:"):
        value = environ.get(source.removeprefix("env:"))
        if not value:
            raise NotReady(f"{source}: the variable is not set: {HOW}")
        return value.encode()
    parts = urlsplit(source)
    if parts.scheme == "secretsmanager":
        return secret(source, client)
    if parts.scheme not in {"", "file"}:
        raise SettingsError(
            f"{source}: no source of keys; name a file, env:NAME, secretsmanager://REGION/NAME or kms://REGION/ID"
        )
    path = Path(parts.path if parts.scheme == "file" else source)
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotReady(f"{path}: keys cannot be read: {error.strerror}: {HOW}") from error


class KmsSigner:
    """A key in AWS KMS (``ECC_NIST_EDWARDS25519``), by ``kms://REGION/KEY_ID?name=NAME``.

    Each signature is a call over the network, some 10 ms while the caller waits: for checkpoints, not grants.
    """

    def __init__(self, url: str, client: Client) -> None:
        parts = urlsplit(url)
        self._key_id = parts.path.lstrip("/")
        if not self._key_id:
            raise SettingsError(f"{url}: no key: kms://REGION/KEY_ID?name=NAME")
        self._client = client("kms", parts.netloc)
        answer = asked(url, lambda: self._client.get_public_key(KeyId=self._key_id))
        der: bytes = answer["PublicKey"]
        if not der.startswith(_SPKI_ED25519) or len(der) != len(_SPKI_ED25519) + 32:
            raise SettingsError(f"{url}: not an Ed25519 key; make it with the key spec ECC_NIST_EDWARDS25519")
        self._url = url
        self.public = der[len(_SPKI_ED25519) :]
        self.kid = kid_of(parse_qs(parts.query).get("name", ["kms"])[0], self.public)

    def sign(self, data: bytes) -> bytes:
        """See :class:`tasks.access.signing.Signer`. KMS signs 4096 bytes at most."""
        wanted = {
            "KeyId": self._key_id,
            "Message": data,
            "MessageType": "RAW",
            "SigningAlgorithm": "ED25519_SHA_512",
        }
        signature: bytes = asked(self._url, lambda: self._client.sign(**wanted))["Signature"]
        return signature
