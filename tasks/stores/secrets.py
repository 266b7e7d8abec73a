"""Secrets in AWS Secrets Manager, by ``secretsmanager://REGION/NAME``; the region may be empty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from tasks.errors import NotReady, SettingsError

SCHEME: Final = "secretsmanager://"
Client = Callable[[str, str], Any]
"""Makes an AWS client: (service, region), the region empty for the environment's own."""


def aws_client(service: str, region: str) -> Any:
    """Return boto3's client of ``service``."""
    import boto3

    return boto3.client(service, region_name=region or None)  # type: ignore[call-overload]


def secret(source: str, client: Client = aws_client) -> bytes:
    """Return the secret at ``source``.

    Raises:
        SettingsError: ``source`` names none.
        NotReady: AWS does not give it.
    """
    parts = urlsplit(source)
    name = parts.path.lstrip("/")
    if not name:
        raise SettingsError(f"{source}: no secret: secretsmanager://REGION/NAME")
    answer = asked(source, lambda: client("secretsmanager", parts.netloc).get_secret_value(SecretId=name))
    value = answer.get("SecretString")
    return value.encode() if value is not None else bytes(answer["SecretBinary"])


def asked(source: str, call: Callable[[], Any]) -> Any:
    """Return what ``call`` to AWS returns; raise :class:`NotReady`, naming ``source``, where it fails."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return call()
    except (BotoCoreError, ClientError) as error:
        raise NotReady(f"{source}: AWS does not give it: {error}") from error
