"""Object storage on S3 and what speaks its protocol. Credentials come from the usual AWS variables."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cached_property
from typing import TYPE_CHECKING, Final

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import S3Store

from tasks.errors import AlreadyExists, NotFound, NotReady, StoreError
from tasks.settings.whole import AUDIT_BUCKET, DATA_BUCKET
from tasks.stores.objects import Found

if TYPE_CHECKING:
    from obstore.store import S3Config

    from tasks.settings import Settings

_PIECE_BYTES: Final = 1 << 20
"""Copying more at once would hold up the event loop."""


class S3ObjectStore:
    """One bucket. Every write is conditional and carries a SHA-256 checksum, as Object Lock demands.

    ``missing`` says that there is no such bucket to talk to, and the mend: nothing is sent then.
    """

    def __init__(self, bucket: str, *, region: str, endpoint: str | None = None, missing: str = "") -> None:
        self._missing = missing
        self._bucket = bucket
        self._region = region
        self._endpoint = endpoint

    @cached_property
    def _store(self) -> S3Store:
        if self._missing:
            raise NotReady(self._missing)
        # At first use: it takes 10 ms, and a worker that routes may never touch the data bucket.
        options: S3Config = {"region": self._region, "checksum_algorithm": "SHA256"}
        if self._endpoint:
            options |= {"endpoint": self._endpoint, "virtual_hosted_style_request": False}
        return S3Store(
            self._bucket,
            config=options,
            client_options={"allow_http": bool(self._endpoint and self._endpoint.startswith("http:"))},
        )

    async def create(self, key: str, data: bytes) -> None:
        """See :class:`tasks.stores.objects.ObjectStore`."""
        try:
            await obstore.put_async(self._store, key, data, mode="create")
        except AlreadyExistsError as error:
            raise AlreadyExists(key) from error
        except (BaseError, ValueError) as error:
            raise self._failed("create", key, error) from error

    async def replace(self, key: str, data: bytes) -> None:
        """See :class:`tasks.stores.objects.ObjectStore`."""
        try:
            await obstore.put_async(self._store, key, data)
        except (BaseError, ValueError) as error:
            raise self._failed("replace", key, error) from error

    async def get(self, key: str) -> bytes:
        """See :class:`tasks.stores.objects.ObjectStore`."""
        try:
            answer = await obstore.get_async(self._store, key)
            return bytes(await answer.bytes_async())
        except (FileNotFoundError, NotFoundError) as error:
            raise NotFound(key) from error
        except (BaseError, ValueError) as error:
            raise self._failed("get", key, error) from error

    async def read(self, key: str) -> AsyncIterator[bytes]:
        """See :class:`tasks.stores.objects.ObjectStore`."""
        try:
            answer = await obstore.get_async(self._store, key)
            async for piece in answer.stream(min_chunk_size=_PIECE_BYTES):
                yield bytes(piece)
        except (FileNotFoundError, NotFoundError) as error:
            raise NotFound(key) from error
        except (BaseError, ValueError) as error:
            raise self._failed("read", key, error) from error

    async def exists(self, key: str) -> bool:
        """See :class:`tasks.stores.objects.ObjectStore`."""
        try:
            await obstore.head_async(self._store, key)
        except (FileNotFoundError, NotFoundError):
            return False
        except (BaseError, ValueError) as error:
            raise self._failed("head", key, error) from error
        return True

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[str]:
        """See :class:`tasks.stores.objects.ObjectStore`."""
        try:
            async for page in obstore.list(self._store, prefix, offset=after or None):
                for item in page:
                    yield item["path"]
        except (BaseError, ValueError) as error:
            raise self._failed("list", prefix, error) from error

    async def scan(self, prefix: str, *, after: str = "") -> AsyncIterator[Found]:
        """See :class:`tasks.stores.objects.ObjectStore`."""
        try:
            async for page in obstore.list(self._store, prefix, offset=after or None):
                for item in page:
                    version = (item["e_tag"] or "").strip('"')
                    yield Found(item["path"], item["size"], item["last_modified"], version)
        except (BaseError, ValueError) as error:
            raise self._failed("list", prefix, error) from error

    def _failed(self, verb: str, key: str, error: Exception) -> StoreError:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        return StoreError(f"{verb} s3://{self._bucket}/{key}: {first_line}")


def missing(settings: Settings, key: str) -> str:
    """Return what is to be said where no bucket is configured under ``key``; empty where one is."""
    if settings.s3_endpoint or getattr(settings, key) not in {DATA_BUCKET, AUDIT_BUCKET}:
        return ""
    return (
        f"{key}: no object storage is configured, and the embedded stack does not run here: `sluice up` starts it; "
        f"or name a bucket of your own in {key} (SLUICE_{key.upper()}), and where it is not on AWS its s3_endpoint"
    )


def demand_buckets(settings: Settings, *keys: str) -> None:
    """Raise :class:`NotReady` where no bucket is configured under one of ``keys``."""
    for key in keys:
        if told := missing(settings, key):
            raise NotReady(told)


def data_store(settings: Settings) -> S3ObjectStore:
    """Return the bucket of results, sessions and bodies."""
    told = missing(settings, "data_bucket")
    return S3ObjectStore(settings.data_bucket, region=settings.region, endpoint=settings.s3_endpoint, missing=told)


def witness_store(settings: Settings) -> S3ObjectStore | None:
    """Return the bucket of the witness, if there is one."""
    bucket = settings.auditing.witness_bucket
    return S3ObjectStore(bucket, region=settings.region, endpoint=settings.s3_endpoint) if bucket else None


def audit_store(settings: Settings) -> S3ObjectStore:
    """Return the bucket of audit segments."""
    told = missing(settings, "audit_bucket")
    return S3ObjectStore(settings.audit_bucket, region=settings.region, endpoint=settings.s3_endpoint, missing=told)
