"""Malformed events and bodies into the Lambda handlers: each ends in a clear error, comes back, or is a dead letter.

`make test` tries some hundreds of them, `make test-slow` 20,000.
"""

import asyncio
import base64
import copy
import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from handlers.aws import http, s3, sqs
from handlers.door import Accepted, Outcome
from handlers.http.app import application
from handlers.http.jwt import Principal
from tasks import keys
from tasks.access.gate import Caller
from tasks.contracts.request import Request
from tasks.errors import NotFound, SluiceError
from tasks.settings import BucketSource, EventSettings, HttpSettings, JwtSettings, QueueSource, Settings
from tests.unit.http.test_app import SETTINGS, Server

EXAMPLES = [100, pytest.param(3400, marks=pytest.mark.slow)]
"""Of each of the six kinds."""
ARN = "arn:aws:sqs:us-east-1:123456789012:intake"
BUCKET = "data"

JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just("aws:sqs")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
REQUEST = {
    "id": "r1",
    "tenant": "acme",
    "text": "What is a sluice?",
    "session_id": "s",
    "attachments": ["attachments/acme/a.txt"],
    "intent": "answer_question",
    "model": "m",
    "priority": "high",
    "deadline": "2030-01-01T00:00:00Z",
    "metadata": {"a": [1, 2.5, None]},
}
CLOUD_EVENT = {"specversion": "1.0", "id": "1", "source": "/crm", "type": "asked", "data": REQUEST}


class Place:
    """Plays a Lambda container over a world in memory, and remembers what was accepted and what was buried."""

    def __init__(self) -> None:
        self.world = Server()
        self.loop = asyncio.new_event_loop()
        self.settings = Settings(
            data_bucket=BUCKET,
            http=HttpSettings(jwt=JwtSettings(issuer="https://issuer", audience="sluice")),
            events=EventSettings(
                buckets=(BucketSource(prefix="uploads/", tenant="acme"),),
                queues=(QueueSource(name="intake", tenant="acme"),),
            ),
        )
        self.accepted: list[str] = []
        self.buried: list[str] = []
        self._door = self.world.door()

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    async def accept(self, _name: str, requests: Sequence[Request]) -> list[Outcome]:
        outcomes = await self._door.accept(requests, caller=Caller("alice", ("user",)))
        self.accepted += [outcome.id for outcome in outcomes if isinstance(outcome, Accepted)]
        return outcomes

    async def door(self, _name: str) -> Any:
        return SimpleNamespace(stores=SimpleNamespace(data=self.world.data))

    async def keep(self, opening: Any) -> Any:
        return await opening.__aenter__()

    async def put(self, _body: str, *, message_id: str, reason: str) -> None:
        assert reason
        self.buried.append(message_id)

    def close(self) -> None:
        self.run(self.world.close())
        self.loop.close()


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    made = Place()
    for module in (http, s3, sqs):
        monkeypatch.setattr(module, "container", lambda: made)
    monkeypatch.setattr(sqs, "SqsDeadLetters", lambda _settings: made)
    monkeypatch.setattr(s3, "S3ObjectStore", lambda _bucket, **_: made.world.data)
    monkeypatch.setattr("handlers.http.serve.make_app", lambda _settings: application(SETTINGS, made.world.open_api))
    http._adapter.cache_clear()
    yield made
    http._adapter.cache_clear()
    made.close()


def fuzz(examples: int, strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Call ``check`` with ``examples`` examples."""

    @hypothesis_settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(strategy)
    def each(example: Any) -> None:
        check(example)

    each()


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path to everything in ``value``."""
    found = [path]
    if isinstance(value, dict):
        found += [deeper for name, inner in value.items() for deeper in places(inner, (*path, name))]
    elif isinstance(value, list):
        found += [deeper for number, inner in enumerate(value) for deeper in places(inner, (*path, number))]
    return found


@st.composite
def mutated(draw: st.DrawFn, template: Any) -> Any:
    """``template`` with some of it exchanged for junk, or left out."""
    value = copy.deepcopy(template)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(value)))
        if not path:
            value = draw(JUNK) if draw(st.integers(0, 9)) == 0 else value
            continue
        owner = value
        for step in path[:-1]:
            owner = owner[step]
        if draw(st.booleans()):
            owner[path[-1]] = draw(JUNK)
        else:
            del owner[path[-1]]
    return value


def spelt(value: Any) -> str:
    """JSON, as lenient as Python's own: the handlers get what others wrote."""
    return json.dumps(value)


def cut(texts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Texts of which the end may be missing."""
    return st.tuples(texts, st.integers(-160, 40)).map(lambda pair: pair[0][: -pair[1]] if pair[1] > 0 else pair[0])


BODIES = st.one_of(
    cut(mutated(REQUEST).map(spelt)),
    cut(mutated(CLOUD_EVENT).map(spelt)),
    JUNK.map(spelt),
    st.text(max_size=60),
    st.just('{"text":' + "[" * 2000),
)
NAMES = ("uploads/a.txt", "uploads/b.json", "uploads/c.jsonl", "uploads/d.jsonl.gz", "uploads/e.csv", "elsewhere.txt")
UPLOADED = st.sampled_from(NAMES)


def notice(key: str = "uploads/a.txt") -> dict[str, Any]:
    found = {"bucket": {"name": BUCKET}, "object": {"key": key, "eTag": "v", "size": 1}}
    return {"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": found}]}


def through_eventbridge(key: str) -> dict[str, Any]:
    detail = {"bucket": {"name": BUCKET}, "object": {"key": key, "etag": "v", "size": 1}}
    return {"source": "aws.s3", "detail-type": "Object Created", "detail": detail}


def queued(*bodies: str) -> dict[str, Any]:
    return {
        "Records": [
            {"eventSource": "aws:sqs", "messageId": f"m{number}", "eventSourceARN": ARN, "body": body}
            for number, body in enumerate(bodies)
        ]
    }


def answered(handler: Callable[[Any, Any], Any], event: Any) -> Any:
    """What the handler returns; None where it says clearly what is wrong."""
    try:
        return handler(event, None)
    except SluiceError as error:
        assert str(error)  # noqa: PT017  any of our errors, from any depth
        return None


# SQS ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("examples", EXAMPLES)
def test_bodies_of_messages(place: Place, examples: int) -> None:
    def check(bodies: list[str]) -> None:
        place.accepted.clear()
        place.buried.clear()
        again = [item["itemIdentifier"] for item in sqs.handler(queued(*bodies), None)["batchItemFailures"]]
        assert not again, "nothing here is mended by a retry"
        assert len(place.buried) == len(set(place.buried))
        # What was asked twice in a batch, or before, is the same request: accepted, or a conflict and so buried.
        assert len(place.buried) + len(place.accepted) == len(bodies)

    fuzz(examples, st.lists(BODIES, min_size=1, max_size=4), check)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_batches_of_messages(place: Place, examples: int) -> None:
    def check(event: Any) -> None:
        place.accepted.clear()
        place.buried.clear()
        answer = answered(sqs.handler, event)
        if answer is not None:
            assert len(answer["batchItemFailures"] + place.buried + place.accepted) == len(event["Records"])

    fuzz(examples, mutated(queued(spelt(REQUEST), spelt(CLOUD_EVENT))), check)


# S3 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("examples", EXAMPLES)
def test_events_of_buckets(place: Place, examples: int) -> None:
    events = UPLOADED.flatmap(
        lambda key: st.one_of(
            mutated(notice(key)),
            mutated(through_eventbridge(key)),
            mutated({"Type": "Notification", "Message": spelt(notice(key))}),
            mutated(queued(spelt(notice(key)), spelt(through_eventbridge(key)))),
            st.lists(BODIES | mutated(notice(key)).map(spelt), max_size=3).map(lambda bodies: queued(*bodies)),
        )
    )
    place.world.data.objects["uploads/a.txt"] = b"a question"

    def check(event: Any) -> None:
        answer = answered(s3.handler, event)
        if answer is not None:
            names = {record["messageId"] for record in event["Records"]}
            assert {item["itemIdentifier"] for item in answer["batchItemFailures"]} <= names

    fuzz(examples, events, check)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_contents_of_objects(place: Place, examples: int) -> None:
    """Each line is in the manifest, with the id of its request or with what is wrong with it."""
    bodies = BODIES.map(lambda text: text.encode(errors="surrogatepass")) | st.binary(max_size=60)
    numbers = iter(range(1_000_000))

    def check(example: tuple[str, list[bytes], int]) -> None:
        key, rows, loss = example
        data = b"\n".join(rows)
        if key.endswith(".gz"):
            data = gzip.compress(data)[: -loss or None]
        place.world.data.objects[key] = data
        version = f"v{next(numbers)}"
        event = notice(key)
        event["Records"][0]["s3"]["object"]["eTag"] = version
        s3.handler(event, None)
        [manifest] = [value for name, value in place.world.data.objects.items() if name.startswith(keys.MANIFESTS)]
        head, *lines = map(orjson.loads, manifest.splitlines())
        assert head == {"bucket": BUCKET, "key": key, "version": version}
        assert all(line.get("id") or line["error"]["message"] for line in lines)
        if key.endswith(".jsonl"):
            wanted = [number for number, row in enumerate(data.split(b"\n"), 1) if row.strip()]
            assert [line["line"] for line in lines] == wanted
        elif not key.endswith(".gz") or loss:
            assert lines
        for name in [name for name in place.world.data.objects if name.startswith(keys.MANIFESTS)]:
            del place.world.data.objects[name]

    known = UPLOADED.filter(lambda key: key.startswith("uploads/"))
    fuzz(examples, st.tuples(known, st.lists(bodies, max_size=5), st.sampled_from([0, 0, 1, 9])), check)


def test_an_object_that_is_not_there_is_told_of_again(place: Place) -> None:
    with pytest.raises(NotFound):
        s3.handler(notice("uploads/none.txt"), None)


# HTTP ---------------------------------------------------------------------------------------------------


def call(version: str, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
    common = {
        "headers": {"content-type": "application/json", "host": "api", **headers},
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }
    if version == "1.0":
        context = {"identity": {"sourceIp": "10.0.0.1"}, "stage": "$default"}
        path = {"resource": "/{proxy+}", "path": "/v1/requests", "httpMethod": "POST"}
        return {**common, **path, "queryStringParameters": None, "requestContext": context}
    told = {"method": "POST", "path": "/v1/requests", "sourceIp": "10.0.0.1", "protocol": "HTTP/1.1"}
    context_2 = {"http": told, "stage": "$default"}
    return {**common, "version": "2.0", "rawPath": "/v1/requests", "rawQueryString": "", "requestContext": context_2}


def holds(place: Place, answer: dict[str, Any], before: int) -> None:
    """An answer: accepted and in the register, or a problem that says what is wrong."""
    status = answer["statusCode"]
    assert 200 <= status < 500, answer
    if status >= 400:
        problem = orjson.loads(answer["body"])
        assert problem["title"]
        assert problem["detail"]
        assert len(place.world.register.rows) == before


@pytest.mark.parametrize("examples", EXAMPLES)
def test_bodies_of_calls(place: Place, examples: int) -> None:
    place.world.who = Principal(Caller("alice", ("user",)), "acme")
    place.world.limit = SimpleNamespace(take=lambda _tenant: None)  # type: ignore[assignment]
    bodies = BODIES.map(lambda text: text.encode(errors="surrogatepass")) | st.binary(max_size=60)
    preferences = st.sampled_from(["wait=0", "wait=x", "a,,b"])
    named = {"idempotency-key": st.text("abc .:-_/\u00e9", max_size=8), "prefer": preferences}
    headers = st.fixed_dictionaries({}, optional=named)
    calls = st.builds(call, st.sampled_from(["1.0", "2.0"]), bodies, headers)
    fuzz(examples, calls, lambda event: holds(place, http.handler(event, None), len(place.world.register.rows)))


@pytest.mark.parametrize("examples", EXAMPLES)
def test_events_of_gateways(place: Place, examples: int) -> None:
    place.world.limit = SimpleNamespace(take=lambda _tenant: None)  # type: ignore[assignment]
    hosts = st.sampled_from([{}, {"host": "a:b:c"}, {"x-forwarded-port": "many"}, {"content-length": "-1"}])
    calls = st.builds(call, st.sampled_from(["1.0", "2.0"]), st.just(spelt(REQUEST).encode()), hosts)
    events = calls.flatmap(mutated) | calls

    def check(event: Any) -> None:
        holds(place, http.handler(event, None), len(place.world.register.rows))

    fuzz(examples, events, check)
