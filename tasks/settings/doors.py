"""How requests come in beside the Python client: over HTTP, and by events."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from tasks import keys
from tasks.contracts.base import Tenant
from tasks.settings.base import Count, Positive, Section

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


class JwtSettings(Section, frozen=True, kw_only=True):
    """Whose tokens the HTTP door takes. Keys come from ``jwks_url``, by default from what the issuer publishes.

    ``tenant_claim`` and ``roles_claim`` name the claims, with dots for what lies deeper.
    """

    issuer: Annotated[str, msgspec.Meta(pattern="^https?://")]
    audience: Annotated[str, msgspec.Meta(min_length=1)]
    jwks_url: Annotated[str, msgspec.Meta(pattern="^https?://")] | None = None
    algorithms: tuple[Algorithm, ...] = ("RS256", "ES256", "EdDSA")
    tenant_claim: str = "tenant"
    roles_claim: str = "roles"
    leeway_seconds: Annotated[float, msgspec.Meta(ge=0, le=300)] = 30


class HttpSettings(Section, frozen=True, kw_only=True):
    """The HTTP door. Without ``jwt`` it serves the local identity, and on loopback only.

    ``per_second`` and ``burst`` bound the calls of one tenant to one process. ``wait_seconds`` is the longest that a
    caller may have an answer waited for.
    """

    jwt: JwtSettings | None = None
    max_bytes: Count = 2 * 1024 * 1024
    per_second: Positive = 50
    burst: Count = 100
    wait_seconds: Annotated[float, msgspec.Meta(gt=0, le=300)] = 25
    cors_origins: tuple[str, ...] = ()


class BucketSource(Section, frozen=True, kw_only=True):
    """Objects under ``prefix`` of ``bucket`` (by default the data bucket) ask for requests of ``tenant``.

    Without ``tenant`` each request names its own: for a bucket that only the trusted can write to.
    """

    bucket: str | None = None
    prefix: str = keys.UPLOADS
    tenant: Tenant | None = "default"


class QueueSource(Section, frozen=True, kw_only=True):
    """Messages of the SQS queue ``name`` ask for requests of ``tenant``; see :class:`BucketSource`."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    tenant: Tenant | None = "default"


class EventSettings(Section, frozen=True, kw_only=True):
    """What may ask by events; what comes from elsewhere is refused. The longest prefix that fits speaks.

    ``dead_letters`` is the URL of the SQS queue for messages that no retry will mend.
    """

    buckets: tuple[BucketSource, ...] = (BucketSource(),)
    queues: tuple[QueueSource, ...] = ()
    dead_letters: Annotated[str, msgspec.Meta(pattern="^https?://")] | None = None
