"""What lies below delete markers and newer versions: found, named, and verified from there."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tasks import keys
from tasks.audit.faults import Kind
from tasks.errors import NotFound, StoreError
from tasks.stores.objects import MemoryObjectStore
from tasks.stores.versions import Layers, entries, layers_of
from tests.support.ledger import Ledger, filled, write

LATER = datetime(2030, 6, 1, tzinfo=UTC)


class Locked(MemoryObjectStore):
    """A bucket that keeps each version; None is a delete marker. ``objects`` is what readers meet."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__()
        self.objects = dict(objects)
        self.kept: dict[str, list[bytes | None]] = {key: [data] for key, data in objects.items()}

    def lay(self, key: str, data: bytes | None) -> None:
        self.kept.setdefault(key, []).append(data)
        self.objects.pop(key, None)
        if data is not None:
            self.objects[key] = data


class MemoryVersions:
    """Its versions: their ids are their places."""

    def __init__(self, bucket: Locked, *, may: bool = True) -> None:
        self.bucket = bucket
        self.may = may

    async def layered(self, prefix: str) -> AsyncIterator[Layers]:
        if not self.may:
            raise StoreError("versions of b: AccessDenied")
        for key, kept in sorted(self.bucket.kept.items()):
            if key.startswith(prefix) and len(kept) > 1:
                ids = tuple(str(place) for place, data in enumerate(kept) if data is not None)
                yield Layers(key, ids, kept[-1] is None, LATER)

    async def get(self, key: str, version: str, most: int) -> bytes:
        data = self.bucket.kept[key][int(version)]
        if data is None or data == b"gone":
            raise NotFound(key)
        return data[: most + 1]


@pytest.fixture
async def ledger() -> Ledger:
    return await filled()


async def faults(ledger: Ledger, bucket: Locked, **options: Any) -> list[tuple[Kind, str]]:
    report = await ledger.verify(bucket, versions=MemoryVersions(bucket), witness=ledger.witness, **options)
    assert report.records == 34
    return [(fault.kind, fault.object) for fault in report.faults]


def targets(ledger: Ledger) -> list[str]:
    return [ledger.listed(prefix)[1] for prefix in ("audit/", keys.CHECKPOINTS, keys.LEDGER)]


async def test_a_bucket_over_which_nothing_lies_holds(ledger: Ledger) -> None:
    assert await faults(ledger, Locked(ledger.memory.objects)) == []


@pytest.mark.parametrize("place", range(3))
async def test_what_a_marker_hides_is_named_and_verified(ledger: Ledger, place: int) -> None:
    bucket, key = Locked(ledger.memory.objects), targets(ledger)[place]
    bucket.lay(key, None)
    assert await faults(ledger, bucket) == [(Kind.DELETED, key)]


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("over", [b"forged", b""])
async def test_what_was_written_over_is_named_and_verified(ledger: Ledger, place: int, over: bytes) -> None:
    bucket, key = Locked(ledger.memory.objects), targets(ledger)[place]
    bucket.lay(key, over)
    bucket.lay(key, over + b"again")
    assert await faults(ledger, bucket) == [(Kind.OVERWRITTEN, key)]


async def test_everything_deleted_is_found_again(ledger: Ledger) -> None:
    bucket = Locked(ledger.memory.objects)
    for key in ledger.memory.objects:
        bucket.lay(key, None)
    assert {kind for kind, _ in await faults(ledger, bucket)} == {Kind.DELETED}


async def test_a_signed_version_over_the_sealed_one_is_no_history(ledger: Ledger) -> None:
    """A pool's key was stolen: the oldest is what was sealed."""
    bucket, key = Locked(ledger.memory.objects), ledger.listed()[0]
    time, stream, _ = keys.parse_segment(key)
    other = Ledger()
    other.pools, other.ring = ledger.pools, ledger.ring
    await write(other.stream(keys.stream_component(stream), boot=lambda: stream.rpartition("~")[2]), ["z"])
    [forged] = other.memory.objects.values()
    bucket.lay(key, forged)
    assert time == keys.parse_segment(other.listed()[0]).time
    assert await faults(ledger, bucket) == [(Kind.OVERWRITTEN, key)]


async def test_the_first_version_that_is_genuine_counts_and_junk_is_a_note(ledger: Ledger) -> None:
    """A squatter's checkpoint was taken away by a marker, and the sealer's own came over it."""
    bucket, key = Locked(ledger.memory.objects), keys.checkpoint(2)
    real = bucket.objects[key]
    bucket.kept[key] = [b"squatter", None, real]
    bucket.kept["audit/junk"] = [b"junk", None]
    report = await ledger.verify(bucket, versions=MemoryVersions(bucket), witness=ledger.witness)
    assert report.faults == []
    assert report.caveats == ["2 objects have versions besides that nobody signed: none of them counts"]


async def test_a_version_whose_lock_is_over_and_that_is_gone_is_missed_as_ever(ledger: Ledger) -> None:
    bucket, key = Locked(ledger.memory.objects), ledger.listed()[0]
    bucket.kept[key] = [b"gone", None]
    del bucket.objects[key]
    report = await ledger.verify(bucket, versions=MemoryVersions(bucket), witness=ledger.witness)
    assert [(fault.kind, fault.object) for fault in report.faults] == [(Kind.MISSING, key)]


async def test_a_marker_over_what_is_past_retention_is_lifecycle(ledger: Ledger) -> None:
    bucket, key = Locked(ledger.memory.objects), ledger.listed()[0]
    bucket.lay(key, None)
    after = keys.parse_segment(ledger.listed()[1]).time
    assert await faults(ledger, bucket, expired_before=after) == []
    bucket.lay(key, b"forged")
    assert await faults(ledger, bucket, expired_before=after) == [(Kind.OVERWRITTEN, key)]


async def test_who_may_not_list_versions_is_told_what_was_not_looked_at(ledger: Ledger) -> None:
    bucket = Locked(ledger.memory.objects)
    bucket.lay(ledger.listed()[0], None)
    report = await ledger.verify(bucket, versions=MemoryVersions(bucket, may=False), witness=ledger.witness)
    assert "AccessDenied" in report.caveats[-1]
    assert [fault.kind for fault in report.faults] == [Kind.MISSING]


def test_pages_of_versions_and_markers_are_read_as_the_store_means_them() -> None:
    def entry(key: str, version: str, *, latest: bool = False, **more: object) -> dict[str, Any]:
        return {"Key": key, "VersionId": version, "IsLatest": latest, "LastModified": LATER, **more}

    page = {
        "Versions": [
            entry("a", "2", latest=True, Size=1),
            entry("a", "1", Size=1),
            entry("b", "1", latest=True, Size=0),
            entry("c", "1", Size=1),
        ],
        "DeleteMarkers": [entry("c", "3", latest=True), entry("c", "2"), entry("d", "1", latest=True)],
    }
    assert list(layers_of(entries(page))) == [
        Layers("a", ("1", "2"), deleted=False, time=LATER),
        Layers("c", ("1",), deleted=True, time=LATER),
        Layers("d", (), deleted=True, time=LATER),
    ]
