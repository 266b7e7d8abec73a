"""The ledger on a real S3 server: races of sealers, what the store says about its lock, verify and prove by command."""

import asyncio
import json
import random
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from click.testing import CliRunner

from handlers.cli.main import cli
from scaling import buckets
from tasks import keys
from tasks.audit.stream import AuditStream
from tasks.contracts.base import utc_now
from tasks.errors import NotReady
from tasks.settings import Settings
from tasks.stores.objectlock import demand_lock
from tasks.stores.s3 import S3ObjectStore
from tests.support import build
from tests.support.ledger import Ledger, write

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bucket(settings: Settings, tenant: str) -> S3ObjectStore:
    """A bucket of this test's own: an audit that is verified whole must be nobody else's."""
    client = boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint,
        region_name=settings.region,
        config=Config(s3={"addressing_style": "path"}),
    )
    name = f"ledger-{tenant}"
    client.create_bucket(Bucket=name)
    client.close()
    return S3ObjectStore(name, region=settings.region, endpoint=settings.s3_endpoint)


async def test_sealers_race_on_a_real_store_and_never_fork(bucket: S3ObjectStore) -> None:
    ledger = Ledger(bucket)
    streams = [ledger.stream(pool, now=utc_now) for pool in ("intent", "responder", "door")]
    rng = random.Random(7)

    async def work(stream: AuditStream) -> None:
        for number in range(12):
            await stream.commit([build.event(request_id=f"r{number}")] * rng.randrange(1, 5))
            await asyncio.sleep(rng.random() * 0.05)
        await stream.close()

    async def seal() -> set[int]:
        won = set()
        for _ in range(10):
            # A new one each time: sealers come and go, and each reads the ledger's end from the store.
            sealed = await ledger.sealer(now=utc_now, period=timedelta(0)).run_once(force=True)
            won |= {sealed.number} if sealed else set()
            await asyncio.sleep(rng.random() * 0.02)
        return won

    *_, a, b, c = await asyncio.gather(*map(work, streams), seal(), seal(), seal())
    last = await ledger.sealer(now=utc_now).run_once(force=True)
    report = await ledger.verify(witness=ledger.witness)
    assert report.faults == []
    # Two may claim one: what they wrote in the same millisecond is the same.
    assert last
    assert a | b | c | {last.number} == set(range(report.checkpoints))
    assert report.unsealed == 0
    assert report.segments >= 36


async def test_a_stream_with_every_sign_of_a_name_is_sealed_and_read_back(bucket: S3ObjectStore) -> None:
    ledger = Ledger(bucket)
    stream = ledger.stream("intent", host="a.b-C_1~x", now=utc_now)
    await write(stream, ["a"])
    sealed = await ledger.sealer(now=utc_now).run_once()
    assert sealed is not None
    assert sealed.segments == 1
    assert (await ledger.verify()).ok
    listed = [key async for key in bucket.list(keys.AUDIT_PREFIX)]
    assert [key async for key in bucket.list(keys.AUDIT_PREFIX, after=listed[0])] == []
    assert [key async for key in bucket.list(keys.AUDIT_PREFIX, after=listed[0][:-1])] == listed


async def test_the_bucket_of_the_stack_locks_and_one_without_a_lock_is_refused(
    settings: Settings, environment: dict[str, str], bucket: S3ObjectStore, tenant: str
) -> None:
    asked = settings.changed(auditing=settings.auditing.changed(immutable=True))
    await demand_lock(asked)
    unlocked = asked.changed(audit_bucket=f"ledger-{tenant}")
    with pytest.raises(NotReady, match="COMPLIANCE mode of 366 days"):
        await demand_lock(unlocked)
    with pytest.raises(NotReady, match="locks for 366 days; it needs"):
        await demand_lock(asked.changed(auditing=asked.auditing.changed(retention_days=366)))
    with pytest.raises(NotReady, match="has no default retention"):
        await demand_lock(asked.changed(audit_bucket=f"none-{tenant}"))
    await demand_lock(unlocked.changed(auditing=unlocked.auditing.changed(immutable=False)))


def test_seal_verify_search_and_prove_by_command(
    settings: Settings, environment: dict[str, str], tenant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit, witness = f"audit-{tenant}", f"witness-{tenant}"
    monkeypatch.setenv("SLUICE_AUDIT_BUCKET", audit)
    monkeypatch.setenv("SLUICE_AUDITING__WITNESS_BUCKET", witness)
    monkeypatch.setenv("SLUICE_AUDITING__IMMUTABLE", "true")
    own = settings.changed(audit_bucket=audit, auditing=settings.auditing.changed(witness_bucket=witness))
    buckets.ensure(
        own,
        environment["SLUICE_S3_ENDPOINT"],
        access_key=environment["AWS_ACCESS_KEY_ID"],
        secret_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
    runner = CliRunner()

    def sluice(*arguments: str, code: int = 0) -> str:
        done = runner.invoke(cli, arguments, standalone_mode=False)
        assert (done.return_value or done.exit_code) == code, (done.output, done.exception)
        return done.stdout

    sluice("submit", "--no-wait", "--id", f"a-{tenant}", "What is a sluice?")
    assert "checkpoint 0: " in sluice("seal")
    found = json.loads(sluice("audit", "verify", "--json"))
    assert (found["ok"], found["checkpoints"], found["caveats"]) == (True, 1, [])
    assert "the audit holds" in sluice("audit", "verify", "--since", "0")
    [record] = json.loads(sluice("audit", "search", "--action", "request.accepted", "--from", "2020-01-01", "--json"))
    assert record["request_id"] == f"a-{tenant}"
    assert json.loads(sluice("audit", "search", "--to", "2020-01-01", "--json")) == []
    proof = tmp_path / "proof.json"
    sluice("audit", "prove", f"a-{tenant}", "-o", str(proof))
    ring = environment["SLUICE_SIGNING__RING"]
    command = [sys.executable, str(ROOT / "docs" / "check_inclusion.py"), str(proof), ring]
    assert "request.accepted" in subprocess.run(command, capture_output=True, text=True, check=True).stdout

    copy = tmp_path / "copy"
    asyncio.run(download(own, copy))
    assert "the audit holds" in sluice("audit", "verify", "--copy", str(copy), "--ring", ring)
    [segment] = [file for file in copy.glob("audit/**/*.zst") if "door" in file.name][:1]
    segment.write_bytes(segment.read_bytes()[:-1] + b"x")
    told = sluice("audit", "verify", "--copy", str(copy), code=5)
    assert f"altered: {segment.relative_to(copy)}" in told
    kept = tmp_path / "kept"
    kept.write_bytes((copy / keys.checkpoint(0)).read_bytes())
    assert "does NOT hold" not in sluice("audit", "verify", "--copy", str(copy), "--since", str(kept))


async def download(settings: Settings, folder: Path) -> None:
    store = S3ObjectStore(settings.audit_bucket, region=settings.region, endpoint=settings.s3_endpoint)
    for prefix in (keys.AUDIT_PREFIX, keys.CHECKPOINTS, keys.LEDGER):
        async for key in store.list(prefix):
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
            (folder / key).write_bytes(await store.get(key))
