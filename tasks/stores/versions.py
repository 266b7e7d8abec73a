"""The versions that a bucket keeps below what it shows: a lock protects these, not what is laid over them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime
from functools import cached_property
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from tasks.errors import NotFound, StoreError

if TYPE_CHECKING:
    from tasks.settings import Settings

_MOST_LAYERS: Final = 100


class Layers(NamedTuple):
    """A key that has more than one version, or a delete marker on top.

    ``versions`` are their ids, oldest first; ``deleted`` tells that the marker is what readers meet; ``time`` is that
    of the top, be it version or marker.
    """

    key: str
    versions: tuple[str, ...]
    deleted: bool
    time: datetime


class Versions(Protocol):
    """The port."""

    def layered(self, prefix: str) -> AsyncIterator[Layers]:
        """Yield the keys under ``prefix`` over which something was laid, sorted; raises :class:`StoreError`."""

    async def get(self, key: str, version: str, most: int) -> bytes:
        """Return the first ``most`` bytes of a version, and one more if it has more; raises :class:`NotFound`."""


class BucketVersions:
    """The versions of an S3 bucket. Needs ``s3:ListBucketVersions`` and ``s3:GetObjectVersion``."""

    def __init__(self, bucket: str, *, region: str, endpoint: str | None = None) -> None:
        self._bucket = bucket
        self._region = region
        self._endpoint = endpoint

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        style = Config(s3={"addressing_style": "path"} if self._endpoint else {})
        return boto3.client("s3", endpoint_url=self._endpoint, region_name=self._region, config=style)

    async def layered(self, prefix: str) -> AsyncIterator[Layers]:
        """See :class:`Versions`."""
        pages = self._pages(prefix)
        rest: list[dict[str, Any]] = []
        while (page := await asyncio.to_thread(self._asked, next, pages, None)) is not None:
            found = rest + entries(page)
            # The last key may go on in the next page.
            last = [entry for entry in found if entry["Key"] == found[-1]["Key"]] if found else []
            for layers in layers_of(found[: len(found) - len(last)]):
                yield layers
            # Of a heap of versions over one key the top counts, and the oldest; these come last.
            rest = [entry for entry in last[:-_MOST_LAYERS] if entry["IsLatest"]] + last[-_MOST_LAYERS:]
        for layers in layers_of(rest):
            yield layers

    def _pages(self, prefix: str) -> Iterator[dict[str, Any]]:
        paginator = self._client.get_paginator("list_object_versions")
        yield from paginator.paginate(Bucket=self._bucket, Prefix=prefix)

    async def get(self, key: str, version: str, most: int) -> bytes:
        """See :class:`Versions`."""
        return await asyncio.to_thread(self._asked, self._read, key, version, most)

    def _read(self, key: str, version: str, most: int) -> bytes:
        body = self._client.get_object(Bucket=self._bucket, Key=key, VersionId=version)["Body"]
        with body:
            data: bytes = body.read(most + 1)
        return data

    def _asked(self, call: Any, *arguments: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return call(*arguments)
        except ClientError as error:
            if error.response["Error"]["Code"] in {"NoSuchKey", "NoSuchVersion"}:
                raise NotFound(str(arguments[0])) from error
            raise StoreError(f"versions of {self._bucket}: {error}") from error
        except BotoCoreError as error:
            raise StoreError(f"versions of {self._bucket}: {error}") from error


def entries(page: dict[str, Any]) -> list[dict[str, Any]]:
    """Return versions and markers of one page by key, of each key newest first."""
    # The two come in lists of their own, each so sorted; which of them is on top they say themselves.
    both = chain(page.get("DeleteMarkers", ()), page.get("Versions", ()))
    return sorted(both, key=lambda entry: str(entry["Key"]))


def layers_of(found: Iterable[dict[str, Any]]) -> Iterator[Layers]:
    """Yield what is layered among whole keys."""
    for key, group in groupby(found, key=lambda entry: str(entry["Key"])):
        both = list(group)
        versions = tuple(entry["VersionId"] for entry in reversed(both) if "Size" in entry)
        top = next((entry for entry in both if entry["IsLatest"]), both[0])
        deleted = "Size" not in top
        if deleted or len(versions) > 1:
            yield Layers(key, versions, deleted, top["LastModified"])


def audit_versions(settings: Settings) -> BucketVersions:
    """Return the versions of the audit bucket; raises :class:`NotReady` where none is configured."""
    from tasks.stores.s3 import demand_buckets

    demand_buckets(settings, "audit_bucket")
    return BucketVersions(settings.audit_bucket, region=settings.region, endpoint=settings.s3_endpoint)
