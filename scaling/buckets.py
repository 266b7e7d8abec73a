"""Creates the two buckets. On AWS Terraform does it; this is for the embedded S3 server."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any

from tasks.errors import StoreError
from tasks.settings import Settings
from tasks.stores.objectlock import lock_days


def ready(endpoint: str) -> bool:
    """Tell whether an S3 server answers at ``endpoint`` (also with a refusal)."""
    try:
        with urllib.request.urlopen(endpoint, timeout=1):  # noqa: S310  our own http address
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def ensure(settings: Settings, endpoint: str, *, access_key: str, secret_key: str) -> None:
    """Create what is missing: the data bucket, and the audit bucket with Object Lock and default retention.

    Raises:
        StoreError: a bucket can not be made, or the audit bucket is there without Object Lock.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=settings.region,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 8, "mode": "standard"}),
    )
    try:
        _create(client, settings.data_bucket, lock=False)
        _create(client, settings.audit_bucket, lock=True)
        if settings.auditing.witness_bucket:
            _create(client, settings.auditing.witness_bucket, lock=True)
        client.put_object_lock_configuration(
            Bucket=settings.audit_bucket,
            ObjectLockConfiguration={
                "ObjectLockEnabled": "Enabled",
                "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": lock_days(settings)}},
            },
        )
    except (BotoCoreError, ClientError) as error:
        raise StoreError(f"buckets: {error}") from error


def _create(client: Any, bucket: str, *, lock: bool) -> None:
    existing = {found["Name"] for found in client.list_buckets()["Buckets"]}
    if bucket not in existing:
        client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=lock)
