"""The whole path on AWS's protocols: moto's server for S3 and SQS, a real Redis, real worker processes.

Lambda itself is played: what a queue has is handed to the handlers in this process. moto locks nothing, so nothing here
says anything about the audit's immutability.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import httpx
import orjson
import pytest

from handlers.aws import http, s3
from handlers.aws.container import Container
from handlers.producer import AsyncProducer
from scaling import keyfiles
from scaling.stack import free_ports
from tasks import keys
from tasks.access.signing import GRANT, Scope
from tasks.settings import HttpSettings, JwtSettings, Settings
from tasks.settings_load import load
from tests.e2e.conftest import HERE, Fleet
from tests.e2e.test_escalations import told
from tests.integration.test_lambda import gateway
from tests.support import aws, issuer

RESPONDER = keys.agent_pool("responder")
ATTEMPTS = 2


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with aws.serving() as address:
        yield address


@pytest.fixture
def cloud(address: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """An account: buckets, a bucket that tells a queue of its objects, the queues of a deployment, and its settings."""
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    name = f"c{time.time_ns()}"
    bucket, queues = aws.client("s3", address), aws.client("sqs", address)
    bucket.create_bucket(Bucket=f"data-{name}")
    bucket.create_bucket(Bucket=f"audit-{name}", ObjectLockEnabledForBucket=True)
    uploads = queues.create_queue(QueueName=keys.sqs_queue(name, keys.UPLOADED))["QueueUrl"]
    arn = f"arn:aws:sqs:{aws.REGION}:{aws.ACCOUNT}:{keys.sqs_queue(name, keys.UPLOADED)}"
    below = {"Key": {"FilterRules": [{"Name": "prefix", "Value": keys.UPLOADS}]}}
    notice = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*"], "Filter": below}
    bucket.put_bucket_notification_configuration(
        Bucket=f"data-{name}", NotificationConfiguration={"QueueConfigurations": [notice]}
    )
    private, ring = (
        Path(shutil.copy(file, tmp_path)) for file in (settings.signing.keys[0], settings.signing.ring or "")
    )
    keyfiles.add("gateway", Scope((GRANT,), ("acme",), ("*",), ("user",)), private=private, ring=ring)
    for variable, value in {
        "AWS_ENDPOINT_URL": f"http://{address}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": aws.REGION,
        "SLUICE_S3_ENDPOINT": f"http://{address}",
        "SLUICE_DATA_BUCKET": f"data-{name}",
        "SLUICE_AUDIT_BUCKET": f"audit-{name}",
        "SLUICE_BROKER_URL": aws.deploy(address, name, settings.pools, visibility=10, receives=ATTEMPTS),
        "SLUICE_SIGNING__RING": str(ring),
        "SLUICE_QUEUE__ATTEMPTS": str(ATTEMPTS),
        "SLUICE_EVENTS__BUCKETS": '[{"prefix": "uploads/acme/", "tenant": "acme"}]',
    }.items():
        monkeypatch.setenv(variable, value)
    return SimpleNamespace(
        s3=bucket, sqs=queues, data=f"data-{name}", uploads=uploads, arn=arn, private=private, settings=load()
    )


@pytest.fixture
def workers(cloud: Any, fleet: Fleet) -> Fleet:
    fleet.sweeper()
    fleet.start("worker", *(part for pool in cloud.settings.pools for part in ("--pool", pool)))
    return fleet


@pytest.fixture
def token(cloud: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The handlers have the containers that Lambda runs them in; callers of the gateway have this token."""
    with issuer.serving() as address:
        gateway_settings = cloud.settings.changed(
            http=HttpSettings(jwt=JwtSettings(issuer=address, audience="sluice")),
            signing=cloud.settings.signing.changed(keys=(str(cloud.private),)),
            grants=cloud.settings.grants.changed(identity="gateway"),
        )
        places = {s3: Container(cloud.settings), http: Container(gateway_settings)}
        for module, place in places.items():
            monkeypatch.setattr(module, "container", lambda place=place: place)
        http._adapter.cache_clear()
        yield issuer.token(iss=address)
        for place in places.values():
            place.close()
        http._adapter.cache_clear()


def hand_over(cloud: Any, most: int, seconds: float = 30) -> int:
    """Hand the notices of the bucket to the handler, as Lambda does, until ``most`` objects were told of."""
    end = time.monotonic() + seconds
    taken = 0
    while taken < most:
        assert time.monotonic() < end
        found = cloud.sqs.receive_message(QueueUrl=cloud.uploads, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        messages = found.get("Messages", [])
        records = [
            {"messageId": m["MessageId"], "body": m["Body"], "eventSource": "aws:sqs", "eventSourceARN": cloud.arn}
            for m in messages
        ]
        if not records:
            continue
        answer = s3.handler({"Records": records}, None)
        again = {item["itemIdentifier"] for item in answer["batchItemFailures"]} if answer else set()
        for message in messages:
            if message["MessageId"] not in again:
                cloud.sqs.delete_message(QueueUrl=cloud.uploads, ReceiptHandle=message["ReceiptHandle"])
                taken += "ObjectCreated" in message["Body"]
    return taken


def results(cloud: Any, count: int, seconds: float = 60) -> list[dict[str, Any]]:
    """The result objects of acme, once there are ``count``."""
    end = time.monotonic() + seconds
    while True:
        listed = cloud.s3.list_objects_v2(Bucket=cloud.data, Prefix="results/acme/").get("Contents", [])
        if len(listed) >= count:
            return [
                orjson.loads(cloud.s3.get_object(Bucket=cloud.data, Key=one["Key"])["Body"].read()) for one in listed
            ]
        assert time.monotonic() < end, f"{len(listed)} of {count}"
        time.sleep(0.2)


def test_files_and_calls_become_results(cloud: Any, workers: Fleet, token: str) -> None:
    lines = [{"id": f"line-{n}", "text": f"What is the number {n}?", "intent": "answer_question"} for n in range(3)]
    files = {
        "note.txt": b"What is the capital of Norway?",
        "many.jsonl": b"\n".join(map(orjson.dumps, [*lines, {"text": 7}])),
    }
    for name, body in files.items():
        cloud.s3.put_object(Bucket=cloud.data, Key=f"uploads/acme/{name}", Body=body)
    assert hand_over(cloud, len(files)) == len(files)
    found = results(cloud, 4)
    assert {one["status"] for one in found} <= {"succeeded", "escalated"}
    assert {one["request_id"] for one in found} > {"line-0", "line-1", "line-2"}
    manifests = cloud.s3.list_objects_v2(Bucket=cloud.data, Prefix=keys.MANIFESTS)["Contents"]
    assert len(manifests) == 2

    for version in ("1.0", "2.0"):
        body = orjson.dumps({"id": f"v{version}", "text": "What is the capital of Peru?"})
        call = gateway(version, "POST", "/v1/requests", body, token)
        call["headers"]["prefer"] = "wait=25"
        answer = http.handler(call, None)
        assert (answer["statusCode"], orjson.loads(answer["body"])["status"]) == (200, "succeeded"), answer
        seen = http.handler(gateway(version, "GET", f"/v1/requests/v{version}", b"", token), None)
        assert orjson.loads(seen["body"])["result"]["request_id"] == f"v{version}"


def test_calls_through_a_server_become_results(cloud: Any, workers: Fleet) -> None:
    [port] = free_ports(1)
    workers.start("http", "--port", str(port))
    url = f"http://127.0.0.1:{port}"
    _until_ready(url)
    asked = {"text": "What is a queue?", "intent": "answer_question"}
    answer = httpx.post(f"{url}/v1/requests", json=asked, headers={"prefer": "wait=25"}, timeout=40)
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded"), answer.text
    events = httpx.get(f"{url}/v1/requests/{answer.json()['id']}/events", timeout=40).text
    assert [line for line in events.splitlines() if line.startswith("event:")][-1] == "event: finished"


def _until_ready(url: str) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the server is not ready")


@pytest.mark.slow
async def test_what_kills_its_workers_is_a_dead_letter_and_succeeds_once_they_are_mended(
    cloud: Any, fleet: Fleet
) -> None:
    fleet.sweeper()
    fleet.worker(keys.INTENT_POOL)
    async with AsyncProducer(cloud.settings, tenant="acme") as producer:
        poison = await producer.submit("POISON", id="poison", intent="answer_question")
        await producer._settle()
        deaths = await asyncio.to_thread(_supervise, fleet, cloud)
        result = await producer.result(poison, 10)
        assert (result.status, result.error and result.error.code) == ("failed", "attempts_exhausted")
        assert deaths == ATTEMPTS
        async with asyncio.timeout(20):  # it is published after the result, and the sweeper clears what SQS buried too
            while len(found := await asyncio.to_thread(told, "dlq", "list", "--tenant", "acme")) != 1:
                await asyncio.sleep(1)
        [letter] = found
        assert (letter["request_id"], letter["attempts"], letter["standing"]) == ("poison", ATTEMPTS, "dead")
        [done] = await asyncio.to_thread(told, "dlq", "redrive", "poison")
        assert (done["revision"], done["fresh"]) == (2, True)
        fleet.worker(RESPONDER)
        again = await producer.result(poison, 60)
        assert (again.revision, again.status) == (2, "succeeded")
        assert await asyncio.to_thread(told, "dlq", "list", "--tenant", "acme") == []


def _supervise(fleet: Fleet, cloud: Any) -> int:
    """Start another worker whenever one dies, until the request has its result; return how many died."""
    deaths = 0
    end = time.monotonic() + 90
    worker: subprocess.Popen[bytes] | None = None
    while not cloud.s3.list_objects_v2(Bucket=cloud.data, Prefix="results/acme/poison").get("Contents"):
        assert time.monotonic() < end
        if worker is None or worker.poll() is not None:
            deaths += worker is not None
            worker = fleet.start(RESPONDER, script=HERE / "poisoned_worker.py")
        time.sleep(0.1)
    assert worker is not None
    worker.send_signal(signal.SIGTERM)
    worker.wait(60)
    return deaths
