"""Where alerts go beside the log: a webhook, and an SNS topic. Each imports its client when it first sends."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from tasks.access import webhooks
from tasks.audit.alerts import Alert, Alerts, LogTarget, Target
from tasks.contracts.base import canonical
from tasks.errors import SettingsError, StoreError
from tasks.settings import AlertTargets, AuditSettings
from tasks.stores.windows import Windows

if TYPE_CHECKING:
    import httpx

SECRET_ENV: Final = "SLUICE_ALERT_WEBHOOK_SECRET"  # noqa: S105  its name, not its value
_LEAST_SECRET: Final = 16
_PAUSES: Final = (0.5, 2.0)
"""Seconds before the second and the third try."""
_TIMEOUT_SECONDS: Final = 5.0
_AGAIN: Final = frozenset({408, 425, 429})


class WebhookTarget:
    """A POST of the alert as JSON, signed as all our webhooks. ``transport`` stands in for the network in tests."""

    name = "webhook"

    def __init__(
        self,
        url: str,
        secret: bytes,
        *,
        now: Callable[[], datetime],
        pauses: Sequence[float] = _PAUSES,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = url
        self._secret = secret
        self._now = now
        self._pauses = pauses
        self._transport = transport

    async def send(self, alert: Alert) -> None:
        """See :class:`tasks.audit.alerts.Target`. Raises :class:`StoreError` after the last try."""
        import httpx

        body = canonical(alert.to_dict())
        async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, transport=self._transport) as client:
            for pause in (*self._pauses, None):
                moment = int(self._now().timestamp())
                signed = webhooks.headers(alert.id, moment, body, [self._secret])
                headers = {"Content-Type": "application/json", **signed}
                try:
                    answer = await client.post(self._url, content=body, headers=headers)
                except httpx.HTTPError as error:
                    problem = type(error).__name__  # its text may hold the URL, and that a secret
                else:
                    if answer.is_success:
                        return
                    problem = f"status {answer.status_code}"
                    if not answer.is_server_error and answer.status_code not in _AGAIN:
                        break
                if pause is None:
                    break
                await asyncio.sleep(pause)
        raise StoreError(f"the webhook does not take it: {problem}")


class SnsTarget:
    """A message to a topic, by boto3 in a thread of its own. ``client`` stands in for AWS in tests."""

    name = "sns"

    def __init__(self, topic: str, *, client: Callable[[str], Any] | None = None) -> None:
        self._topic = topic
        self._client = client or _sns

    async def send(self, alert: Alert) -> None:
        """See :class:`tasks.audit.alerts.Target`."""
        await asyncio.to_thread(self._publish, alert)

    def _publish(self, alert: Alert) -> None:
        # arn:aws:sns:REGION:ACCOUNT:NAME
        client = self._client(self._topic.split(":")[3])
        client.publish(
            TopicArn=self._topic,
            Subject=f"Sluice: {alert.type} ({alert.severity})",
            Message=canonical(alert.to_dict()).decode(),
            MessageAttributes={
                "type": {"DataType": "String", "StringValue": alert.type},
                "severity": {"DataType": "String", "StringValue": alert.severity},
            },
        )


def make_alerts(settings: AuditSettings, *, windows: Windows, actor: str, now: Callable[[], datetime]) -> Alerts:
    """Return what raises the alerts that ``settings`` ask for.

    Raises:
        SettingsError: a webhook without a secret to sign with.
    """
    return Alerts(
        settings.alert_rules, targets=make_targets(settings.alerts, now=now), windows=windows, actor=actor, now=now
    )


def make_targets(
    settings: AlertTargets, *, now: Callable[[], datetime], environ: Mapping[str, str] = os.environ
) -> list[Target]:
    """Return the log and what ``settings`` name beside it; see :func:`make_alerts`."""
    targets: list[Target] = [LogTarget()]
    if settings.webhook:
        targets.append(WebhookTarget(settings.webhook, _secret(settings, environ), now=now))
    if settings.topic:
        targets.append(SnsTarget(settings.topic))
    return targets


def _secret(settings: AlertTargets, environ: Mapping[str, str]) -> bytes:
    text = environ.get(SECRET_ENV, "")
    if not text and settings.webhook_secret_file:
        try:
            text = settings.webhook_secret_file.read_text("utf-8").strip()
        except OSError as error:
            raise SettingsError(f"auditing.alerts.webhook_secret_file: cannot be read: {error}") from error
    if len(text) < _LEAST_SECRET:
        raise SettingsError(
            f"auditing.alerts.webhook: set {SECRET_ENV} or webhook_secret_file to {_LEAST_SECRET} characters or more, "
            "so that the receiver can tell our calls from others"
        )
    return text.encode()


def _sns(region: str) -> Any:
    import boto3
    from botocore.config import Config

    patience = Config(connect_timeout=5, read_timeout=5, retries={"total_max_attempts": 3, "mode": "standard"})
    return boto3.client("sns", region_name=region, config=patience)
