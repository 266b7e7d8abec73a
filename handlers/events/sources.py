"""Whom a source of events speaks for."""

from __future__ import annotations

from handlers.events.notices import Created
from tasks.errors import Denied
from tasks.settings import Settings


def tenant_of_object(settings: Settings, created: Created) -> str | None:
    """Return the tenant that an object speaks for; None where each request names its own.

    Raises:
        Denied: no source in the settings has it.
    """
    fitting = [
        source
        for source in settings.events.buckets
        if created.bucket == (source.bucket or settings.data_bucket) and created.key.startswith(source.prefix)
    ]
    if not fitting:
        raise Denied(f"s3://{created.bucket}/{created.key}: events.buckets names no such bucket and prefix")
    return max(fitting, key=lambda source: len(source.prefix)).tenant


def tenant_of_queue(settings: Settings, arn: str) -> str | None:
    """Return the tenant that the queue with ``arn`` speaks for; None where each request names its own.

    Raises:
        Denied: no source in the settings has it.
    """
    name = arn.rpartition(":")[2]
    for source in settings.events.queues:
        if source.name == name:
            return source.tenant
    raise Denied(f"queue {name!r}: events.queues does not name it")
