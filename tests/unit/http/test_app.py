import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest

from handlers.acting import Acting
from handlers.desk import Desk
from handlers.door import Outcome
from handlers.http.app import Api, application
from handlers.http.jwt import Local, Principal
from handlers.http.limits import RateLimit
from tasks.access.gate import Caller
from tasks.audit import read as trail
from tasks.contracts.request import Request
from tasks.errors import NotReady, QuotaExceeded, StoreError, Unauthenticated
from tasks.settings import HttpSettings
from tests.support.asgi import client_of
from tests.support.world import RESPONDER, World

SETTINGS = HttpSettings(max_bytes=2000, wait_seconds=2)


class Server(World):
    """The HTTP door over a world in memory. ``fault`` is raised at each submission."""

    def __init__(self) -> None:
        super().__init__()
        self.fault: Exception | None = None
        self.ready: Exception | None = None
        self.who: Principal | Exception = Principal(Caller("alice", ("user",)), "acme")
        self.limit = RateLimit(1000, 1000, lambda: self.clock.seconds)
        self.audit = self.stream("door")

    def desk(self) -> Desk:
        async def sleep(seconds: float) -> None:
            self.clock.advance(seconds)

        return Desk(
            acting=lambda caller: Acting(caller, self.gate, self.audit, self.clock),
            register=self.register,
            results=self.results,
            finisher=self.finisher(self.audit),
            now=self.clock,
            sleep=sleep,
        )

    def api(self) -> Api:
        door = self.door()

        async def accept(request: Request, caller: Caller) -> Outcome:
            if self.fault:
                raise self.fault
            [outcome] = await door.accept([request], caller=caller)
            return outcome

        async def authenticate(authorization: str | None) -> Principal:
            if isinstance(self.who, Exception):
                raise self.who
            return await Local(*self.who)(authorization)

        async def ready() -> None:
            if self.ready:
                raise self.ready

        return Api(SETTINGS, accept=accept, desk=self.desk(), authenticate=authenticate, limit=self.limit, ready=ready)

    @contextlib.asynccontextmanager
    async def open_api(self) -> AsyncIterator[Api]:
        yield self.api()

    async def answer(self) -> None:
        """Have both hops do what waits."""
        await self.deliver(self.route(), "requests")
        await self.deliver(self.work(), RESPONDER)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    yield made
    await made.close()


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(application(SETTINGS, server.open_api)) as client:
        yield client


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["status"] == status
    return found


async def test_a_request_is_accepted_answered_and_read(server: Server, http: httpx.AsyncClient) -> None:
    accepted = await http.post("/v1/requests", json={"text": "hello"})
    assert accepted.status_code == 202
    here = accepted.headers["location"]
    assert accepted.json()["links"]["self"] == here
    assert (await http.get(here)).json()["status"] == "accepted"
    await server.deliver(server.route(), "requests")
    assert (await http.get(here)).json()["status"] == "routed"
    await server.deliver(server.work(), RESPONDER)
    ended = (await http.get(here)).json()
    assert ended["status"] == "succeeded"
    assert ended["result"]["tenant"] == "acme"


async def test_a_key_makes_it_the_same_request(http: httpx.AsyncClient) -> None:
    sent = {"headers": {"Idempotency-Key": "order-7"}, "json": {"text": "hello"}}
    first, again = await http.post("/v1/requests", **sent), await http.post("/v1/requests", **sent)  # type: ignore[arg-type]
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"] == "order-7"
    other = await http.post("/v1/requests", headers={"Idempotency-Key": "order-7"}, json={"text": "other"})
    assert problem(other, 409)["title"] == "conflict"
    named = await http.post("/v1/requests", headers={"Idempotency-Key": "a"}, json={"text": "t", "id": "b"})
    assert "idempotency-key" in problem(named, 400)["detail"]


async def test_an_event_is_a_request(http: httpx.AsyncClient) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/crm", "type": "asked", "data": {"text": "hello"}}
    headers = {"content-type": "application/cloudevents+json"}
    assert (await http.post("/v1/requests", content=orjson.dumps(event), headers=headers)).status_code == 202


async def test_who_prefers_to_wait_gets_the_end(server: Server, http: httpx.AsyncClient) -> None:
    waited = await http.post("/v1/requests", json={"text": "hello", "id": "a"}, headers={"Prefer": "wait=1"})
    assert waited.status_code == 202  # it did not end in time
    await server.answer()
    done = await http.post(
        "/v1/requests", json={"text": "hello", "id": "a"}, headers={"Prefer": "respond-async, wait=60"}
    )
    assert (done.status_code, done.json()["status"]) == (200, "succeeded")
    assert done.headers["preference-applied"] == "wait=2"


async def test_each_step_is_told_once(server: Server, http: httpx.AsyncClient) -> None:
    await http.post("/v1/requests", json={"text": "hello", "id": "a"})
    waiting = await http.get("/v1/requests/a/events")
    assert waiting.headers["content-type"].startswith("text/event-stream")
    assert names(waiting) == ["accepted"]
    await server.answer()
    assert names(await http.get("/v1/requests/a/events")) == ["accepted", "routed", "running", "finished"]


def names(answer: httpx.Response) -> list[str]:
    return [line.removeprefix("event: ") for line in answer.text.splitlines() if line.startswith("event: ")]


async def test_what_has_not_ended_is_cancelled_once(server: Server, http: httpx.AsyncClient) -> None:
    await http.post("/v1/requests", json={"text": "hello", "id": "a"})
    first, again = await http.delete("/v1/requests/a"), await http.delete("/v1/requests/a")
    assert [first.status_code, again.status_code] == [200, 200]
    assert first.json() == again.json()
    assert first.json()["result"]["error"]["message"] == "cancelled by alice"
    await server.deliver(server.route(), "requests")  # whose request has ended
    assert (await http.get("/v1/requests/a")).json()["status"] == "cancelled"
    records = await trail.read(server.audit_store, request_id="a")
    assert [record.actor for record in records if record.action == "request.cancelled"] == ["alice"]


async def test_what_has_ended_is_not_cancelled(server: Server, http: httpx.AsyncClient) -> None:
    await http.post("/v1/requests", json={"text": "hello", "id": "a"})
    await server.answer()
    assert "succeeded" in problem(await http.delete("/v1/requests/a"), 409)["detail"]


async def test_another_tenants_request_is_not_there(server: Server, http: httpx.AsyncClient) -> None:
    await http.post("/v1/requests", json={"text": "hello", "id": "a"})
    server.who = Principal(Caller("bob", ("user",)), "other")
    for answer in (
        await http.get("/v1/requests/a"),
        await http.delete("/v1/requests/a"),
        await http.get("/v1/requests/a/events"),
    ):
        problem(answer, 404)
    said = await http.post("/v1/requests", json={"text": "hello", "tenant": "acme"})
    assert "tenant" in problem(said, 400)["detail"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "JSON"),
        (b"\xff", "JSON"),
        (b"[]", "object"),
        (b'{"text": ""}', "text"),
        (b'{"text": "t", "colour": 1}', "colour"),
        (b'{"text": "t", "intent": "unknown_intent"}', "intent"),
    ],
)
async def test_what_is_wrong_names_the_field(http: httpx.AsyncClient, body: bytes, named: str) -> None:
    answer = await http.post("/v1/requests", content=body, headers={"content-type": "application/json"})
    assert named in problem(answer, 400)["detail"]


async def test_other_faults_of_a_call_are_problems(server: Server, http: httpx.AsyncClient) -> None:
    large = b'{"text": "' + b"x" * 2000 + b'"}'
    problem(await http.post("/v1/requests", content=large, headers={"content-type": "application/json"}), 413)
    problem(await http.post("/v1/requests", content=b"{}", headers={"content-type": "text/plain"}), 415)
    problem(await http.get("/v1/nothing"), 404)
    problem(await http.put("/v1/requests"), 405)
    problem(await http.get("/v1/requests/none"), 404)
    server.who = Unauthenticated("no token")
    assert problem(await http.get("/v1/requests/a"), 401)["title"] == "unauthenticated"


async def test_a_door_that_cannot_serve_says_so_and_nothing_of_the_inside(
    server: Server, http: httpx.AsyncClient
) -> None:
    server.fault = StoreError("redis://secret-host:6379 is away")
    answer = await http.post("/v1/requests", json={"text": "t"})
    assert "secret-host" not in problem(answer, 503)["detail"]
    assert answer.headers["retry-after"] == "5"
    server.fault = RuntimeError("secret-host")
    assert "secret-host" not in problem(await http.post("/v1/requests", json={"text": "t"}), 500)["detail"]
    server.fault = QuotaExceeded("full", retry_seconds=9)
    answer = await http.post("/v1/requests", json={"text": "t"})
    assert (problem(answer, 429)["title"], answer.headers["retry-after"]) == ("quota_exceeded", "9")


async def test_one_tenant_cannot_call_without_end(server: Server, http: httpx.AsyncClient) -> None:
    server.limit = RateLimit(1, 1, lambda: server.clock.seconds)
    async with client_of(application(SETTINGS, server.open_api)) as limited:
        await limited.get("/v1/requests/a")
        answer = await limited.get("/v1/requests/a")
        assert problem(answer, 429)
        assert answer.headers["retry-after"] == "1"
        server.clock.advance(1)
        problem(await limited.get("/v1/requests/a"), 404)


async def test_probes_need_no_token(server: Server, http: httpx.AsyncClient) -> None:
    server.who = Unauthenticated("no token")
    assert (await http.get("/healthz")).status_code == 200
    assert (await http.get("/readyz")).status_code == 200
    server.ready = NotReady("no keys")
    problem(await http.get("/readyz"), 503)
    assert (await http.get("/openapi.json")).json()["openapi"] == "3.1.0"


async def test_every_answer_is_guarded(http: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/nothing"):
        answer = await http.get(path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers


async def test_other_origins_are_let_in_by_name(server: Server) -> None:
    settings = SETTINGS.changed(cors_origins=("https://shop.example",))
    async with client_of(application(settings, server.open_api)) as client:
        asked = {"origin": "https://shop.example", "access-control-request-method": "POST"}
        answer = await client.options("/v1/requests", headers=asked)
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        answer = await client.options("/v1/requests", headers={**asked, "origin": "https://evil.example"})
        assert "access-control-allow-origin" not in answer.headers
