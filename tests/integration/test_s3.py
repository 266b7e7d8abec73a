"""Object storage on a real S3 server: created once, read back, listed; the audit bucket locked."""

import asyncio
import random
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tasks import keys
from tasks.access.sources import load_keys
from tasks.audit.read import read
from tasks.audit.stream import AuditStream
from tasks.contracts.result import Status
from tasks.contracts.session import SessionVersion
from tasks.errors import AlreadyExists, NotFound, StoreError
from tasks.settings import Settings
from tasks.stores.bodies import BodyStore
from tasks.stores.connect import Stores
from tasks.stores.objects import MemoryObjectStore, ObjectStore
from tasks.stores.s3 import S3ObjectStore
from tests.support import build


@pytest.fixture(params=["fake", "real"])
def store(request: pytest.FixtureRequest, stores: Stores) -> ObjectStore:
    """The fake and the real one: both keep the contract."""
    return stores.data if request.param == "real" else MemoryObjectStore()


async def listed(store: ObjectStore, prefix: str) -> list[str]:
    return sorted([key async for key in store.list(prefix)])


async def test_what_is_created_is_read_back(store: ObjectStore, tenant: str) -> None:
    key = keys.result(tenant, "r1")
    assert not await store.exists(key)
    await store.create(key, b"\x00\xff data")
    assert await store.get(key) == b"\x00\xff data"
    assert await store.exists(key)


async def test_what_is_large_is_read_in_pieces(store: ObjectStore, tenant: str) -> None:
    data = random.Random(7).randbytes(5 << 20)
    await store.create(f"results/{tenant}/large", data)
    assert b"".join([piece async for piece in store.read(f"results/{tenant}/large")]) == data
    with pytest.raises(NotFound):
        [piece async for piece in store.read(f"results/{tenant}/none")]


async def test_an_object_is_created_once(store: ObjectStore, tenant: str) -> None:
    await store.create(f"results/{tenant}/a", b"first")
    for data in (b"second", b"first"):
        with pytest.raises(AlreadyExists):
            await store.create(f"results/{tenant}/a", data)
    assert await store.get(f"results/{tenant}/a") == b"first"


async def test_of_many_writers_one_wins(store: ObjectStore, tenant: str) -> None:
    async def write(index: int) -> int | None:
        try:
            await store.create(f"results/{tenant}/race", str(index).encode())
        except AlreadyExists:
            return None
        return index

    won = [index for index in await asyncio.gather(*map(write, range(4))) if index is not None]
    assert [str(index).encode() for index in won] == [await store.get(f"results/{tenant}/race")]


async def test_what_is_not_there_is_not_found(store: ObjectStore, tenant: str) -> None:
    with pytest.raises(NotFound):
        await store.get(f"results/{tenant}/none")
    assert await listed(store, f"results/{tenant}/") == []


async def test_large_objects(store: ObjectStore, tenant: str) -> None:
    data = random.Random(1).randbytes(3_000_000)
    await store.create(f"bodies/{tenant}/large", data)
    assert await store.get(f"bodies/{tenant}/large") == data


@pytest.mark.parametrize("request_id", ["a", "..", ".", "a:b", "a.b_c-d", "A" * 128, ":", "..."])
async def test_every_valid_id_makes_keys_that_work(store: ObjectStore, tenant: str, request_id: str) -> None:
    written = {
        keys.result(tenant, request_id),
        keys.result(tenant, request_id, 2),
        keys.body(tenant, request_id, "d" * 64),
        keys.session(tenant, request_id, 1),
    }
    for key in written:
        await store.create(key, key.encode())
    assert [await store.get(key) for key in written] == [key.encode() for key in written]
    assert await listed(store, keys.session_prefix(tenant, request_id)) == [keys.session(tenant, request_id, 1)]
    assert await listed(store, f"results/{tenant}/") == sorted(key for key in written if key.startswith("results/"))


async def test_listing_stays_inside_its_prefix(store: ObjectStore, tenant: str) -> None:
    for session, version in (("s", 1), ("s", 2), ("s2", 1), ("s.a", 1)):
        await store.create(keys.session(tenant, session, version), b"{}")
    prefix = keys.session_prefix(tenant, "s")
    assert await listed(store, prefix) == [keys.session(tenant, "s", version) for version in (1, 2)]


async def test_listing_more_than_one_page(stores: Stores, tenant: str) -> None:
    names = [f"results/{tenant}/{index:04d}" for index in range(1100)]
    for start in range(0, len(names), 100):
        await asyncio.gather(*(stores.data.create(name, b"x") for name in names[start : start + 100]))
    assert await listed(stores.data, f"results/{tenant}/") == names


# What lies on top -------------------------------------------------------------------------------------------


async def test_results_are_created_once_and_ones_own_is_recognised(stores: Stores, tenant: str) -> None:
    asked = build.request(tenant=tenant)
    mine, other = build.result(asked, output="mine"), build.result(asked, output="other", status=Status.FAILED)
    assert await stores.results.get(tenant, asked.id) is None
    assert await stores.results.create(mine) == mine
    assert await stores.results.create(mine) == mine
    assert await stores.results.create(other) == mine
    assert await stores.results.create(other.changed(revision=2)) != mine
    assert await stores.results.get(tenant, asked.id) == mine


async def test_the_newest_version_of_a_session(stores: Stores, tenant: str) -> None:
    assert await stores.sessions.latest(tenant, "s") is None
    for number in (1, 2, 10):
        version = SessionVersion(
            tenant=tenant,
            session_id="s",
            version=number,
            saved_at=build.EPOCH,
            state={"messages": [None, {"content": None}], "n": number},
            result=build.result(),
        )
        await stores.sessions.create(version)
        assert await stores.sessions.latest(tenant, "s") == version
    with pytest.raises(AlreadyExists):
        await stores.sessions.create(version)


async def test_a_large_body_comes_back(stores: Stores, tenant: str) -> None:
    bodies = BodyStore(stores.data, inline_bytes=10)
    asked = build.request("grüße " * 2000, tenant=tenant)
    message = build.message(asked, body=await bodies.pack(asked, asked.digest()))
    assert await bodies.unpack(message) == asked.body()


async def test_the_audit_is_written_read_and_locked(stores: Stores, settings: Settings, tenant: str) -> None:
    stream = AuditStream(
        "door",
        stores.audit,
        host=tenant,
        signer=load_keys(settings).signer("audit:door"),
        redact=lambda value: value,
        now=lambda: datetime.now(UTC),
        flush_seconds=60,
    )
    await stream.commit([build.event(tenant=tenant, request_id=f"{tenant}-{index}") for index in range(3)])
    await stream.close()
    [record] = await read(stores.audit, request_id=f"{tenant}-1")
    assert record.tenant == tenant
    key = next(key for key in await listed(stores.audit, f"audit/{record.time:%Y/%m/%d}/") if f"~{tenant}~" in key)
    client = boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint,
        region_name=settings.region,
        config=Config(s3={"addressing_style": "path"}),
    )
    head = client.head_object(Bucket=settings.audit_bucket, Key=key)
    assert head["ObjectLockMode"] == "COMPLIANCE"
    kept = head["ObjectLockRetainUntilDate"] - datetime.now(UTC)
    assert kept > timedelta(days=settings.auditing.retention_days)
    with pytest.raises(ClientError, match="AccessDenied"):
        client.delete_object(Bucket=settings.audit_bucket, Key=key, VersionId=head["VersionId"])
    with pytest.raises(AlreadyExists):
        await stores.audit.create(key, b"forged")
    client.close()


# What goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["results/t/../../x", "results//x"])
async def test_a_key_that_is_a_path_upwards_is_refused(stores: Stores, key: str) -> None:
    with pytest.raises(StoreError):
        await stores.data.create(key, b"x")


async def test_wrong_credentials_are_a_store_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tenant: str
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    store = S3ObjectStore(settings.data_bucket, region=settings.region, endpoint=settings.s3_endpoint)
    for call in (store.create(f"results/{tenant}/a", b""), store.get("a"), store.exists("a"), listed(store, "a/")):
        with pytest.raises(StoreError) as refused:
            await call
        assert not isinstance(refused.value, AlreadyExists | NotFound)
