"""Does the audit bucket lock what is written to it? Asked once at start, and only where the settings demand it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from tasks.errors import NotReady, StoreError

if TYPE_CHECKING:
    from tasks.settings import Settings

_DAYS_OF_A_YEAR: Final = 365
Configuration = Mapping[str, Any]


def lock_days(settings: Settings) -> int:
    """Return for how many days the bucket has to lock: one more than records are kept."""
    return settings.auditing.retention_days + 1


async def demand_lock(settings: Settings, read: Callable[[Settings], Configuration | None] | None = None) -> None:
    """Return where the audit bucket locks what is written, or nobody asked for it (``auditing.immutable``).

    ``read`` returns the bucket's Object Lock configuration, None where it has none.

    Raises:
        NotReady: it does not; the message names the mend.
        StoreError: the store does not say.
    """
    if not settings.auditing.immutable:
        return
    found = await asyncio.to_thread(read or _read, settings)
    rule = ((found or {}).get("Rule") or {}).get("DefaultRetention") or {}
    days = rule.get("Days") or _DAYS_OF_A_YEAR * (rule.get("Years") or 0)
    if (found or {}).get("ObjectLockEnabled") == "Enabled" and rule.get("Mode") == "COMPLIANCE":
        if days >= lock_days(settings):
            return
        has = f"locks for {days} days"
    else:
        has = "has no default retention in compliance mode"
    raise NotReady(
        f"auditing.immutable: the bucket {settings.audit_bucket} {has}; it needs Object Lock with a default retention "
        f"in COMPLIANCE mode of {lock_days(settings)} days (auditing.retention_days and one more), see docs/audit.md"
    )


def _read(settings: Settings) -> Configuration | None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    from tasks.stores.s3 import demand_buckets

    demand_buckets(settings, "audit_bucket")
    client = boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint,
        region_name=settings.region,
        config=Config(s3={"addressing_style": "path"} if settings.s3_endpoint else {}),
    )
    try:
        return client.get_object_lock_configuration(Bucket=settings.audit_bucket)["ObjectLockConfiguration"]
    except ClientError as error:
        if error.response["Error"]["Code"] in {"ObjectLockConfigurationNotFoundError", "NoSuchBucket"}:
            return None
        raise StoreError(f"object lock of {settings.audit_bucket}: {error}") from error
    except BotoCoreError as error:
        raise StoreError(f"object lock of {settings.audit_bucket}: {error}") from error
    finally:
        client.close()
