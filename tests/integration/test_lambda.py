"""The Lambda handlers on AWS's protocols (moto in server mode) and a real Redis."""

import asyncio
import base64
import contextlib
import random
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import orjson
import pytest
from moto.server import ThreadedMotoServer

from handlers.aws import container as containers
from handlers.aws import http, s3, seal, sqs, sweep
from handlers.aws.container import Container
from scaling import keyfiles
from tasks import keys
from tasks.access.signing import GRANT, Scope
from tasks.agents.fake import FakeRunner
from tasks.audit.read import read
from tasks.errors import SettingsError, StoreError
from tasks.runtime import Worker
from tasks.settings import (
    BucketSource,
    EventSettings,
    HttpSettings,
    JwtSettings,
    QueueSource,
    Settings,
    SigningSettings,
)
from tasks.stores.connect import Stores, connect
from tests.support import aws, issuer
from tests.support.world import classify

REGION = "us-east-1"
AT_ONCE = 100


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of an AWS."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def account(endpoint: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tenant: str) -> Any:
    """Clients, buckets and queues of an account; the settings name what is this test's own."""
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it would remember these credentials, and did others
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
    }.items():
        monkeypatch.setenv(name, value)
    bucket, queues = boto3.client("s3", region_name=REGION), boto3.client("sqs", region_name=REGION)
    data, audit = f"data-{tenant}", f"audit-{tenant}"
    bucket.create_bucket(Bucket=data)
    bucket.create_bucket(Bucket=audit, ObjectLockEnabledForBucket=True)
    made = {
        name: queues.create_queue(QueueName=f"{name}-{tenant}")["QueueUrl"] for name in ("intake", "events", "dead")
    }
    arns = {name: f"arn:aws:sqs:{REGION}:123456789012:{name}-{tenant}" for name in made}
    return SimpleNamespace(s3=bucket, sqs=queues, data=data, audit=audit, urls=made, arns=arns, endpoint=endpoint)


@pytest.fixture
def own(account: Any, settings: Settings) -> Settings:
    return settings.changed(
        s3_endpoint=account.endpoint,
        data_bucket=account.data,
        audit_bucket=account.audit,
        events=EventSettings(
            buckets=(BucketSource(prefix="uploads/acme/", tenant="acme"), BucketSource(prefix="trusted/", tenant=None)),
            queues=(QueueSource(name=account.arns["intake"].rpartition(":")[2], tenant="acme"),),
            dead_letters=account.urls["dead"],
        ),
    )


@pytest.fixture
def here(own: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Container]:
    """The container that the handlers run in."""
    made = Container(own)
    for module in (containers, http, s3, seal, sqs, sweep):
        monkeypatch.setattr(module, "container", lambda: made)
    http._adapter.cache_clear()
    yield made
    made.close()


@pytest.fixture
async def opened(own: Settings, stores: Stores) -> AsyncIterator[Stores]:
    async with connect(own) as found:
        yield found


def notice(bucket: str, key: str, version: str = "v") -> dict[str, Any]:
    found = {"bucket": {"name": bucket}, "object": {"key": key, "eTag": version, "size": 1}}
    return {"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": found}]}


async def called(handler: Any, event: dict[str, Any]) -> Any:
    """Call ``handler`` where no loop runs, as Lambda does."""
    return await asyncio.to_thread(handler, event, None)


async def open_ids(stores: Stores, tenant: str = "acme") -> int:
    return (await stores.register.load(tenant))["open"]


async def test_a_file_that_is_dropped_becomes_requests(account: Any, here: Container, opened: Stores) -> None:
    lines = b'{"text": "one"}\n{"text": 2}\n{"text": "three"}'
    account.s3.put_object(Bucket=account.data, Key="uploads/acme/a.jsonl", Body=lines)
    for _ in range(2):
        await called(s3.handler, notice(account.data, "uploads/acme/a.jsonl"))
    assert await open_ids(opened) == 2
    [key] = [key async for key in opened.data.list("manifests/")]
    assert b"text" in (await opened.data.get(key)).splitlines()[2]
    actions = [record.action.value for record in await read(opened.audit)]
    assert actions.count("request.accepted") == 2


@pytest.mark.parametrize("objects", [50, pytest.param(500, marks=pytest.mark.slow)])
async def test_objects_told_of_up_to_five_times_at_once_make_each_request_once(
    account: Any, here: Container, opened: Stores, objects: int
) -> None:
    await delivered(here, account, put_and_told(account, objects))
    assert await open_ids(opened) == objects


@pytest.mark.parametrize("objects", [20, pytest.param(500, marks=pytest.mark.slow)])
async def test_objects_told_of_up_to_five_times_at_once_have_one_result_each(
    account: Any, here: Container, opened: Stores, tenant: str, objects: int
) -> None:
    """Through both hops, on SQS: workers run while the events still come."""
    pools = [keys.INTENT_POOL, "agents.responder"]
    url = aws.deploy(account.endpoint.partition("://")[2], tenant, pools, visibility=30)
    here.settings = here.settings.changed(broker_url=url)
    told = put_and_told(account, objects)
    runner, stopping = FakeRunner(lambda task: task.text), asyncio.Event()
    async with (
        Worker(here.settings, [pools[0]], classify=classify) as intent,
        Worker(here.settings, [pools[1]], runner=runner) as responder,
    ):
        serving = [asyncio.create_task(worker.run(stopping)) for worker in (intent, responder)]
        await delivered(here, account, told)
        async with asyncio.timeout(60 + objects):
            while await open_ids(opened):
                await asyncio.sleep(0.2)
        stopping.set()
        await asyncio.gather(*serving)
    results = [await opened.data.get(key) async for key in opened.data.list("results/acme/")]
    assert len(results) == objects
    outputs = [orjson.loads(result)["output"] for result in results]
    assert sorted(outputs) == sorted(f"question {number}" for number in range(objects))
    records = [record for record in await read(opened.audit) if record.action == "result.written"]
    assert len({record.request_id for record in records}) == objects


def put_and_told(account: Any, objects: int) -> list[str]:
    """Put ``objects`` into the bucket; return their keys as they are told of: 1 to 5 times, in any order."""
    chance = random.Random(7)
    told = []
    for number in range(objects):
        key = f"uploads/acme/{number}.txt"
        account.s3.put_object(Bucket=account.data, Key=key, Body=f"question {number}".encode())
        told += [key] * chance.randint(1, 5)
    chance.shuffle(told)
    assert len(told) > 2 * objects
    return told


async def delivered(here: Container, account: Any, told: list[str]) -> None:
    """Deliver the notices, as many at once as Lambda may have running; one that failed is delivered again."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(key: str) -> None:
        async with free:
            for _ in range(10):
                with contextlib.suppress(StoreError):
                    return await s3.take(here, s3.created(notice(account.data, key)))
        raise AssertionError(key)

    async def deliver() -> None:
        await asyncio.gather(*map(one, told))

    with ThreadPoolExecutor(1) as thread:
        await asyncio.wrap_future(thread.submit(here.run, deliver()))


async def test_what_comes_from_elsewhere_is_left_alone(account: Any, here: Container, opened: Stores) -> None:
    account.s3.put_object(Bucket=account.data, Key="results/x.txt", Body=b"not asked")
    await called(s3.handler, notice(account.data, "results/x.txt"))
    assert [key async for key in opened.data.list("manifests/")] == []


async def test_notices_through_a_queue_fail_one_by_one(account: Any, here: Container, opened: Stores) -> None:
    account.s3.put_object(Bucket=account.data, Key="uploads/acme/q.txt", Body=b"by queue")
    bodies = [orjson.dumps(notice(account.data, "uploads/acme/q.txt")).decode(), "junk"]
    bodies.append(orjson.dumps(notice(account.data, "uploads/acme/not-there.txt")).decode())
    records = [
        {"eventSource": "aws:sqs", "messageId": f"m{number}", "eventSourceARN": "arn:q", "body": body}
        for number, body in enumerate(bodies)
    ]
    answer = await called(s3.handler, {"Records": records})
    assert [item["itemIdentifier"] for item in answer["batchItemFailures"]] == ["m1", "m2"]
    assert await open_ids(opened) == 1


async def test_messages_of_a_queue_become_requests_and_junk_a_dead_letter(
    account: Any, here: Container, opened: Stores
) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/crm", "type": "asked", "data": {"text": "hello"}}
    bodies = ['{"text": "plain"}', orjson.dumps(event).decode(), "junk", '{"text": "t", "tenant": "other"}']
    for body in bodies:
        account.sqs.send_message(QueueUrl=account.urls["intake"], MessageBody=body)
    taken = account.sqs.receive_message(QueueUrl=account.urls["intake"], MaxNumberOfMessages=10)["Messages"]
    records = [
        {"messageId": one["MessageId"], "body": one["Body"], "eventSourceARN": account.arns["intake"]} for one in taken
    ]
    for _ in range(2):
        assert await called(sqs.handler, {"Records": records}) == {"batchItemFailures": []}
    assert await open_ids(opened) == 2
    kept = account.sqs.receive_message(
        QueueUrl=account.urls["dead"], MaxNumberOfMessages=10, MessageAttributeNames=["All"]
    )["Messages"]
    reasons = {one["Body"]: one["MessageAttributes"]["reason"]["StringValue"] for one in kept}
    assert "JSON" in reasons["junk"]
    assert "speaks for 'acme' only" in reasons[bodies[3]]


@pytest.mark.parametrize("version", ["1.0", "2.0"])
async def test_a_call_through_the_gateway(
    account: Any, here: Container, opened: Stores, version: str, tmp_path: Path
) -> None:
    with issuer.serving() as address:
        here.settings = guarded(here.settings, address, tmp_path)
        await _calls(version, issuer.token(iss=address))
        await _refused(version)


def for_anybody(signing: SigningSettings, folder: Path) -> SigningSettings:
    """Return keys with one more, that signs for every user of acme."""
    private, ring = (Path(shutil.copy(file, folder)) for file in (signing.keys[0], signing.ring or ""))
    keyfiles.add("gateway", Scope((GRANT,), ("acme",), ("*",), ("user",)), private=private, ring=ring)
    return SigningSettings(keys=(str(private),), ring=str(ring))


@pytest.mark.parametrize(("wanted", "seconds"), [(300.0, 1.5), (1.0, 1.0)])
async def test_events_are_a_long_poll_that_ends_before_the_gateway_gives_up(
    account: Any,
    here: Container,
    opened: Stores,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wanted: float,
    seconds: float,
) -> None:
    assert http._MOST_SECONDS == 25
    monkeypatch.setattr(http, "_MOST_SECONDS", 1.5)
    with issuer.serving() as address:
        here.settings = guarded(here.settings, address, tmp_path, wait_seconds=wanted)
        token = issuer.token(iss=address)
        body = b'{"text": "hello", "id": "a"}'
        assert (await called(http.handler, gateway("2.0", "POST", "/v1/requests", body, token)))["statusCode"] == 202
        begun = time.monotonic()
        answer = await called(http.handler, gateway("2.0", "GET", "/v1/requests/a/events", b"", token))
        assert seconds <= time.monotonic() - begun < seconds + 10
        assert answer["headers"]["content-type"].startswith("text/event-stream")
        assert (answer["isBase64Encoded"], answer["body"].count("event: ")) == (False, 1)
        await called(http.handler, gateway("2.0", "DELETE", "/v1/requests/a", b"", token))
        begun = time.monotonic()
        answer = await called(http.handler, gateway("2.0", "GET", "/v1/requests/a/events", b"", token))
        assert time.monotonic() - begun < 1
        assert "event: finished\n" in answer["body"]


def guarded(settings: Settings, address: str, folder: Path, **fields: Any) -> Settings:
    """Return settings of a door that wants tokens of ``address``."""
    return settings.changed(
        http=HttpSettings(jwt=JwtSettings(issuer=address, audience="sluice"), **fields),
        signing=for_anybody(settings.signing, folder),
        grants=settings.grants.changed(identity="gateway"),
    )


async def _refused(version: str) -> None:
    """What a gateway says of the caller counts for nothing: the function checks the token itself."""
    event = gateway(version, "GET", "/v1/requests/a", b"", "Bearer junk")
    claims = {"sub": "mallory", "tenant": "acme", "roles": "admin"}
    event["requestContext"]["authorizer"] = {"claims": claims, "jwt": {"claims": claims}, "principalId": "mallory"}
    assert (await called(http.handler, event))["statusCode"] == 401


async def _calls(version: str, token: str) -> None:
    async def call(method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
        answer = await called(http.handler, gateway(version, method, path, body, token))
        return answer["statusCode"], orjson.loads(answer["body"])

    status, accepted = await call("POST", "/v1/requests", b'{"text": "hello"}')
    assert status == 202
    assert (await call("GET", f"/v1/requests/{accepted['id']}"))[1]["status"] == "accepted"
    assert (await call("DELETE", f"/v1/requests/{accepted['id']}"))[1]["status"] == "cancelled"
    assert (await call("GET", "/v1/requests/none"))[0] == 404
    assert (await call("GET", "/v1/escalations"))[0] == 403  # a user's token


async def test_without_an_issuer_the_gateway_lets_nobody_in(account: Any, here: Container, opened: Stores) -> None:
    with pytest.raises(SettingsError, match=r"http\.jwt"):
        await called(http.handler, gateway("2.0", "GET", "/healthz", b"", ""))


def gateway(version: str, method: str, path: str, body: bytes, token: str) -> dict[str, Any]:
    """Return the event of a REST API (1.0) or an HTTP API (2.0)."""
    common = {
        "headers": {"content-type": "application/json", "host": "api", "authorization": token},
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }
    if version == "1.0":
        context = {"identity": {"sourceIp": "10.0.0.1"}, "stage": "$default", "httpMethod": method, "path": path}
        return {
            **common,
            "resource": "/{proxy+}",
            "path": path,
            "httpMethod": method,
            "queryStringParameters": None,
            "requestContext": context,
        }
    context_2 = {"http": {"method": method, "path": path, "sourceIp": "10.0.0.1", "protocol": "HTTP/1.1"}}
    return {
        **common,
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "requestContext": {**context_2, "stage": "$default"},
    }


async def test_schedules_sweep_and_seal(account: Any, here: Container, opened: Stores) -> None:
    account.s3.put_object(Bucket=account.data, Key="uploads/acme/a.txt", Body=b"one")
    await called(s3.handler, notice(account.data, "uploads/acme/a.txt"))
    assert set(await called(sweep.handler, {})) == {"unpublished", "lost", "lapsed", "expired", "buried"}
    assert (await called(seal.handler, {}))["number"] == 0
