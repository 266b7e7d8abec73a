"""Keyed commitments: who holds a value and the key can prove that it was this one, and nobody else learns anything.

A commitment is the HMAC-SHA256 of tenant, field and value, cut to 80 bits. The key never lies in a bucket: it comes
from the environment or from a file that only its owner may read.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from typing import Final

from tasks.errors import SettingsError
from tasks.settings import AuditSettings

KEY_ENV: Final = "SLUICE_COMMITMENT_KEY"  # its name, not its value
KEY_BYTES: Final = 32
DIGITS: Final = 20
"""Hexadecimal digits of a commitment."""
_DOMAIN: Final = b"sluice-commitment/1"
_LEAST_CHARACTERS: Final = 12
"""A shorter value could be found by trying all there are, by whoever comes by the key."""


class Commitments:
    """Commits to values under one key of at least 32 bytes."""

    def __init__(self, key: bytes) -> None:
        if len(key) < KEY_BYTES:
            raise SettingsError(f"the commitment key has {len(key)} bytes; it needs {KEY_BYTES} random ones")
        self._key = key

    def of(self, value: str, *, tenant: str, field: str) -> str:
        """Return the commitment to ``value``: 20 hexadecimal digits. Equal values of two tenants or fields differ."""
        import hmac

        # Neither tenant nor field can hold the separator, and the value comes last.
        said = b"\0".join((_DOMAIN, tenant.encode(), field.encode(), value.encode("utf-8", "surrogatepass")))
        return hmac.digest(self._key, said, "sha256").hex()[:DIGITS]


def is_guessable(value: str) -> bool:
    """Tell whether so few values are like ``value`` that a commitment to it would give it away with the key."""
    return len(value) < _LEAST_CHARACTERS or not any(char.isalpha() for char in value)


def load(settings: AuditSettings, environ: Mapping[str, str] = os.environ) -> Commitments | None:
    """Return the commitments under the configured key, or None where there is no key.

    Raises:
        SettingsError: the key cannot be read, is too short, or others may read its file.
    """
    if text := environ.get(KEY_ENV):
        return Commitments(_decoded(text, KEY_ENV))
    if (file := settings.commitment_key_file) is None:
        return None
    where = f"auditing.commitment_key_file: {file}"
    try:
        if file.stat().st_mode & 0o077:
            raise SettingsError(f"{where}: others may read it; chmod 600 it")
        text = file.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{where}: cannot be read: {error}") from error
    return Commitments(_decoded(text, where))


def new_key() -> str:
    """Return a new key as it stands in a file or in the environment: base64 of 32 random bytes."""
    import secrets

    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def _decoded(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        raise SettingsError(f"{where}: not base64; make one with `openssl rand -base64 32`") from None
