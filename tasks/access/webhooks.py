"""What the receiver of a webhook checks: the headers of Standard Webhooks, by a secret that both sides have.

Each tenant has a secret of its own for its callbacks, derived from the deployment's: whoever holds that of one tenant
cannot speak to the receivers of another.
"""

from __future__ import annotations

import base64
import hmac
import os
from collections.abc import Mapping, Sequence
from typing import Final

from tasks.access.sources import read
from tasks.errors import NotReady, SettingsError
from tasks.settings import CallbackSettings
from tasks.stores.secrets import Client, aws_client

_LEAST_SECRET: Final = 32
_PURPOSE: Final = b"sluice-callback/1"
_MEND: Final = "name a file, env:NAME or secretsmanager://REGION/NAME"


def headers(name: str, moment: int, body: bytes, secrets: Sequence[bytes]) -> dict[str, str]:
    """Return the headers of one call: ``name`` is its id, ``moment`` the Unix time. Every secret signs."""
    said = f"{name}.{moment}.".encode() + body
    signatures = [base64.b64encode(hmac.digest(secret, said, "sha256")).decode() for secret in secrets]
    return {
        "webhook-id": name,
        "webhook-timestamp": str(moment),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def secret_of(master: bytes, tenant: str) -> bytes:
    """Return what the callbacks of ``tenant`` are signed with."""
    return hmac.digest(master, _PURPOSE + b"\0" + tenant.encode(), "sha256")


def spelt(secret: bytes) -> str:
    """Return ``secret`` as receivers' libraries take it."""
    return "whsec_" + base64.b64encode(secret).decode()


def load_masters(
    settings: CallbackSettings, *, environ: Mapping[str, str] | None = None, client: Client | None = None
) -> tuple[bytes, ...]:
    """Return the deployment's secrets, the one that signs first in front.

    Raises:
        NotReady: one cannot be read.
        SettingsError: one is too short.
    """
    surroundings = os.environ if environ is None else environ
    found = []
    for number, source in enumerate(settings.secrets):
        where = f"callbacks.secrets.{number}"
        try:
            master = read(source, surroundings, client or aws_client).strip()
        except (NotReady, SettingsError):
            # The source is not repeated: the secret itself may stand in its place, and errors go to logs.
            raise NotReady(f"{where}: cannot be read: {_MEND}") from None
        if len(master) < _LEAST_SECRET:
            raise SettingsError(f"{where}: is shorter than {_LEAST_SECRET} bytes: `openssl rand -base64 32` makes one")
        found.append(master)
    return tuple(found)
