"""A process's audit stream as it is opened everywhere: redacted, watched by the alert rules, and closed in order."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import TYPE_CHECKING

from tasks.access.redact import Redactor
from tasks.audit.segment import Signer
from tasks.audit.stream import AuditStream
from tasks.contracts.audit import AuditRecord
from tasks.settings import AuditSettings
from tasks.stores.link import Link
from tasks.stores.objects import ObjectStore

if TYPE_CHECKING:
    from tasks.audit.alerts import Alerts


@contextlib.asynccontextmanager
async def open_stream(
    component: str,
    settings: AuditSettings,
    *,
    store: ObjectStore,
    link: Link,
    signer: Signer,
    redactor: Redactor,
    now: Callable[[], datetime],
) -> AsyncIterator[AuditStream]:
    """Yield the stream of ``component``; at the end alerts that wait are raised, then the stream is closed.

    Raises:
        SettingsError: an alert target lacks something.
    """
    host = socket.gethostname()
    alerts = _alerts(settings, link, f"{component}@{host}", now) if settings.alert_rules else None
    stream = AuditStream(
        component,
        store,
        host=host,
        signer=signer,
        redact=redactor.value,
        now=now,
        flush_seconds=settings.flush_seconds,
        observe=alerts.observe if alerts else _unwatched,
    )
    if alerts:
        alerts.attach(stream.report)
    try:
        yield stream
    finally:
        if alerts:
            await alerts.close()
        await stream.close()


def _alerts(settings: AuditSettings, link: Link, actor: str, now: Callable[[], datetime]) -> Alerts:
    from tasks.audit.targets import make_alerts
    from tasks.stores.windows import RedisWindows

    return make_alerts(settings, windows=RedisWindows(link), actor=actor, now=now)


def _unwatched(_record: AuditRecord) -> None:
    """Do nothing: there is no rule."""
