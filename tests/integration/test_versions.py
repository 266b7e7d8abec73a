"""Tampering with a bucket that locks: a delete leaves a marker and a PUT a newer version, and `verify` looks below."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from click.testing import CliRunner

from handlers.cli.main import cli
from scaling import buckets
from tasks import keys
from tasks.audit.faults import Kind, Verification
from tasks.contracts.base import utc_now
from tasks.settings import Settings
from tasks.stores.objects import get_at_most
from tasks.stores.s3 import audit_store
from tasks.stores.versions import BucketVersions, audit_versions
from tests.support.ledger import Ledger, write


@pytest.fixture
def own(settings: Settings, environment: dict[str, str], tenant: str) -> Settings:
    """Settings with a locked audit bucket of this test's own."""
    chosen = settings.changed(audit_bucket=f"locked-{tenant}")
    buckets.ensure(
        chosen,
        environment["SLUICE_S3_ENDPOINT"],
        access_key=environment["AWS_ACCESS_KEY_ID"],
        secret_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
    return chosen


@pytest.fixture
def client(own: Settings) -> Any:
    style = Config(s3={"addressing_style": "path"})
    return boto3.client("s3", endpoint_url=own.s3_endpoint, region_name=own.region, config=style)


async def sealed(own: Settings, rounds: int = 3) -> Ledger:
    ledger = Ledger(audit_store(own))
    stream = ledger.stream(now=utc_now)
    for number in range(rounds):
        await write(stream, [f"r{number}"])
        await ledger.sealer(now=utc_now).run_once(force=True)
    return ledger


async def verified(ledger: Ledger, own: Settings) -> Verification:
    return await ledger.verify(versions=audit_versions(own), witness=ledger.witness)


async def test_what_was_deleted_or_written_over_is_named_and_verified_from_below(own: Settings, client: Any) -> None:
    ledger = await sealed(own)
    report = await verified(ledger, own)
    assert (report.faults, report.segments, report.caveats) == ([], 3, [])
    segments = [key async for key in ledger.store.list(keys.AUDIT_PREFIX)]
    lists = [key async for key in ledger.store.list(keys.LEDGER)]
    version = client.head_object(Bucket=own.audit_bucket, Key=segments[0])["VersionId"]
    with pytest.raises(ClientError, match="AccessDenied"):
        client.delete_object(Bucket=own.audit_bucket, Key=segments[0], VersionId=version)
    for key in (segments[0], keys.checkpoint(2)):
        client.delete_object(Bucket=own.audit_bucket, Key=key)
    for key in (segments[1], keys.checkpoint(1), lists[0]):
        client.put_object(Bucket=own.audit_bucket, Key=key, Body=b"forged")
    report = await verified(ledger, own)
    assert {(fault.kind, fault.object) for fault in report.faults} == {
        (Kind.DELETED, segments[0]),
        (Kind.DELETED, keys.checkpoint(2)),
        (Kind.OVERWRITTEN, segments[1]),
        (Kind.OVERWRITTEN, keys.checkpoint(1)),
        (Kind.OVERWRITTEN, lists[0]),
    }
    assert (report.segments, report.checkpoints) == (3, 3)
    assert version in next(fault.reason for fault in report.faults if fault.object == segments[0])
    # Who reads the newest versions alone sees that something is wrong, and no more.
    newest = await ledger.verify(witness=ledger.witness)
    assert (Kind.DELETED, segments[0]) not in {(fault.kind, fault.object) for fault in newest.faults}
    assert not newest.ok


async def test_a_squatter_is_taken_away_by_a_marker_and_the_ledger_goes_on(own: Settings, client: Any) -> None:
    ledger = await sealed(own, rounds=1)
    client.put_object(Bucket=own.audit_bucket, Key=keys.checkpoint(1), Body=b"squatter")
    client.delete_object(Bucket=own.audit_bucket, Key=keys.checkpoint(1))
    again = await ledger.sealer(now=utc_now).run_once(force=True)
    assert again
    assert again.number == 1
    report = await verified(ledger, own)
    assert report.faults == []
    assert report.caveats == ["1 objects have versions besides that nobody signed: none of them counts"]


async def test_versions_are_listed_over_many_pages(own: Settings, client: Any) -> None:
    versions = BucketVersions(own.audit_bucket, region=own.region, endpoint=own.s3_endpoint)
    names = [f"audit/{number:04d}" for number in range(7)]
    for name in names:
        for body in (b"first", b"second"):
            client.put_object(Bucket=own.audit_bucket, Key=name, Body=body)
    paged = client.get_paginator("list_object_versions")
    versions._pages = lambda prefix: paged.paginate(  # type: ignore[method-assign]
        Bucket=own.audit_bucket, Prefix=prefix, PaginationConfig={"PageSize": 3}
    ).__iter__()
    found = [layers async for layers in versions.layered("audit/")]
    assert [layers.key for layers in found] == names
    assert [await versions.get(layers.key, layers.versions[0], 3) for layers in found] == [b"firs"] * 7


async def test_a_heap_of_versions_over_one_key_is_not_all_kept(
    own: Settings, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.stores.versions._MOST_LAYERS", 2)
    versions = BucketVersions(own.audit_bucket, region=own.region, endpoint=own.s3_endpoint)
    for number in range(9):
        client.put_object(Bucket=own.audit_bucket, Key="audit/heap", Body=b"%d" % number)
    client.delete_object(Bucket=own.audit_bucket, Key="audit/heap")
    paged = client.get_paginator("list_object_versions")
    versions._pages = lambda prefix: paged.paginate(  # type: ignore[method-assign]
        Bucket=own.audit_bucket, Prefix=prefix, PaginationConfig={"PageSize": 3}
    ).__iter__()
    [layers] = [layers async for layers in versions.layered("audit/")]
    assert layers.deleted
    assert len(layers.versions) < 6
    assert await versions.get(layers.key, layers.versions[0], 3) == b"0"


async def test_a_bucket_without_versions_is_read_as_it_is(own: Settings, client: Any, tenant: str) -> None:
    client.create_bucket(Bucket=f"plain-{tenant}")
    plain = own.changed(audit_bucket=f"plain-{tenant}")
    ledger = await sealed(plain, rounds=1)
    report = await verified(ledger, plain)
    assert (report.faults, report.caveats) == ([], [])
    [key] = [key async for key in ledger.store.list(keys.AUDIT_PREFIX)]
    assert len(await get_at_most(ledger.store, key, 10)) == 11
    client.delete_object(Bucket=plain.audit_bucket, Key=key)
    assert [fault.kind for fault in (await verified(ledger, plain)).faults] == [Kind.MISSING]


async def test_a_bucket_that_is_not_there_is_a_note(own: Settings) -> None:
    ledger = Ledger()
    report = await verified(ledger, own.changed(audit_bucket="nowhere-at-all"))
    assert "was not looked at: versions of nowhere-at-all" in report.caveats[-1]


def test_the_command_looks_below(
    own: Settings, client: Any, tenant: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_AUDIT_BUCKET", own.audit_bucket)
    runner = CliRunner()
    assert runner.invoke(cli, ["submit", "--no-wait", "--id", tenant, "What is a sluice?"]).exit_code == 0
    assert runner.invoke(cli, ["seal"]).exit_code == 0
    listed = client.list_objects_v2(Bucket=own.audit_bucket, Prefix=keys.AUDIT_PREFIX)["Contents"]
    deleted = listed[0]["Key"]
    client.delete_object(Bucket=own.audit_bucket, Key=deleted)
    client.put_object(Bucket=own.audit_bucket, Key=listed[0]["Key"].replace("~door~", "~junk~"), Body=b"junk")
    done = runner.invoke(cli, ["audit", "verify", "--json"], standalone_mode=False)
    found = json.loads(done.stdout)
    assert {(fault["kind"], fault["object"]) for fault in found["faults"]} >= {("deleted", deleted)}
    shown = runner.invoke(cli, ["audit", "search", "--json"])
    assert shown.exit_code == 0
    assert "not shown: audit/" in shown.stderr
