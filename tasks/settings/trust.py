"""Who may do what, what is on record, and how much a tenant may use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from tasks.settings.base import Count, Positive, Section

AlertType = Literal[
    "permission_violation",
    "model_override",
    "intent_override",
    "grant_forged",
    "message_quarantined",
    "message_replayed",
    "audit_gap",
    "dead_letter",
    "model_rejected",
    "quota_exceeded",
    "request_rejected",
    "attempt_failed",
    "callback_failed",
]


class AlertRule(Section, frozen=True, kw_only=True):
    """Which kind of event raises an alert, and how loud: the ``threshold``-th of one tenant within ``window_seconds``.

    Until the window ends there is no second one.
    """

    type: AlertType
    severity: Literal["low", "medium", "high", "critical"]
    threshold: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    window_seconds: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 300


class AlertTargets(Section, frozen=True, kw_only=True):
    """Where alerts go beside the log: a URL, and the ARN of an SNS topic.

    ``webhook_secret_file`` holds what the webhook's calls are signed with; ``$SLUICE_ALERT_WEBHOOK_SECRET`` goes before
    it.
    """

    webhook: Annotated[str, msgspec.Meta(pattern="^https?://")] | None = None
    webhook_secret_file: Path | None = None
    topic: Annotated[str, msgspec.Meta(pattern="^arn:[a-z-]+:sns:")] | None = None


class AuditSettings(Section, frozen=True, kw_only=True):
    """``retention_days`` is the audit bucket's default retention; ``sensitive_fields`` are redacted everywhere.

    ``detect`` adds personal data that is redacted too. ``commitment_key_file`` holds the key of the commitments in the
    marks, see :mod:`tasks.access.commitments`; ``$SLUICE_COMMITMENT_KEY`` goes before it.

    There is a checkpoint every ``seal_seconds``; each is also written to ``witness_bucket``. With ``immutable``
    workers, sweeper and sealer start only where the audit bucket locks its objects for ``retention_days`` and one more.
    """

    retention_days: Annotated[int, msgspec.Meta(ge=1, le=36500)] = 365
    sensitive_fields: tuple[Annotated[str, msgspec.Meta(min_length=1)], ...] = (
        "api_key",
        "password",
        "secret",
        "token",
        "authorization",
        "credit_card",
    )
    detect: tuple[Literal["email", "phone"], ...] = ()
    commitment_key_file: Path | None = None
    alert_rules: tuple[AlertRule, ...] = ()
    alerts: AlertTargets = AlertTargets()
    flush_seconds: Positive = 0.5
    seal_seconds: Positive = 60
    immutable: bool = False
    witness_bucket: str | None = None


class SigningSettings(Section, frozen=True, kw_only=True):
    """Where keys are: a file, ``env:NAME``, ``secretsmanager://REGION/NAME`` or ``kms://REGION/ID?name=NAME``.

    ``keys`` are what this process signs with, the preferred one first; ``ring`` is whom it trusts, with scopes.
    """

    keys: tuple[str, ...] = ()
    ring: str | None = None


class GrantSettings(Section, frozen=True, kw_only=True):
    """``mode`` ``open`` checks no signature and no role: for development only.

    ``identity`` names the key that the Python client and the command line sign with. A grant ends at the request's
    deadline, else after ``max_age_days``. A revocation holds everywhere ``revocation_seconds`` after it was made.
    """

    mode: Literal["signed", "open"] = "signed"
    identity: str | None = None
    audience: str = "sluice"
    max_age_days: Annotated[int, msgspec.Meta(ge=1, le=3650)] = 14
    revocation_seconds: Annotated[float, msgspec.Meta(ge=0, le=300)] = 5


class PolicySettings(Section, frozen=True, kw_only=True):
    """``dir`` holds the policy files (``*.cedar``); they replace those of the package."""

    dir: Path | None = None


class TenantQuota(Section, frozen=True, kw_only=True):
    """What one tenant may have. Left out: as much as it likes.

    ``max_running`` requests are in the queues or run at a time; more wait in the register, up to ``max_waiting`` of
    them; still more are refused. Budgets are for a day in UTC; ``money_per_day`` is in the currency of
    ``quotas.prices``.
    """

    max_waiting: Annotated[int, msgspec.Meta(ge=0)] | None = None
    max_running: Count | None = None
    tokens_per_day: Count | None = None
    money_per_day: Annotated[float, msgspec.Meta(gt=0)] | None = None


class Price(Section, frozen=True, kw_only=True):
    """What a model costs: money for a million tokens that it reads, and that it writes."""

    input: Annotated[float, msgspec.Meta(ge=0)]
    output: Annotated[float, msgspec.Meta(ge=0)]


class QuotaSettings(Section, frozen=True, kw_only=True):
    """``tenants`` stand in place of ``default`` as a whole. ``prices`` are by the name of the model in the result."""

    default: TenantQuota = TenantQuota()
    tenants: dict[str, TenantQuota] = msgspec.field(default_factory=dict)
    prices: dict[str, Price] = msgspec.field(default_factory=dict)
    retry_seconds: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 5

    def of(self, tenant: str) -> TenantQuota:
        """Return the quota of ``tenant``."""
        return self.tenants.get(tenant, self.default)
