"""A process's audit stream as it is opened everywhere: redacted, watched by the alert rules, and closed in order."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import TYPE_CHECKING

from tasks.access.redact import Redactor
from tasks.access.signing import Keys, audit_purpose
from tasks.access.sources import load_keys
from tasks.audit.stream import AuditStream
from tasks.contracts.audit import AuditRecord
from tasks.settings import AuditSettings, Settings
from tasks.stores.connect import Stores, connect
from tasks.stores.link import Link
from tasks.stores.s3 import demand_buckets

if TYPE_CHECKING:
    from tasks.audit.alerts import Alerts


@contextlib.asynccontextmanager
async def open_process(
    settings: Settings, component: str, *, now: Callable[[], datetime]
) -> AsyncIterator[tuple[Keys, Stores, AuditStream]]:
    """Yield what every process has: its keys, the stores, and an audit stream of its own; see :func:`open_audit`."""
    keyset, redactor = load_keys(settings), Redactor.of(settings.auditing)
    async with (
        connect(settings) as stores,
        open_audit(component, settings, stores, keyset=keyset, redactor=redactor, now=now) as audit,
    ):
        yield keyset, stores, audit


@contextlib.asynccontextmanager
async def open_audit(
    component: str, settings: Settings, stores: Stores, *, keyset: Keys, redactor: Redactor, now: Callable[[], datetime]
) -> AsyncIterator[AuditStream]:
    """Yield a new stream of ``component``; at the end alerts that wait are raised, then the stream is closed.

    Raises:
        NotReady: ``keyset`` has no key for it, or no bucket is configured.
        SettingsError: an alert target lacks something.
    """
    demand_buckets(settings, "data_bucket", "audit_bucket")
    host = socket.gethostname()
    auditing = settings.auditing
    alerts = _alerts(auditing, stores.link, f"{component}@{host}", now) if auditing.alert_rules else None
    stream = AuditStream(
        component,
        stores.audit,
        host=host,
        signer=keyset.signer(audit_purpose(component)),
        redact=redactor.value,
        now=now,
        flush_seconds=auditing.flush_seconds,
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
