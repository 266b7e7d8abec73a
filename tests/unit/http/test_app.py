from typing import Any

import httpx
import orjson
import pytest

from handlers.http import openapi
from handlers.http.app import application
from handlers.http.jwt import Principal
from handlers.http.limits import RateLimit
from handlers.progress import Follower, Standing
from tasks.access.gate import Caller
from tasks.agents.fake import FakeRunner
from tasks.agents.types import AgentAnswer, AgentTask
from tasks.audit import read as trail
from tasks.errors import ForgedMessage, NotReady, QuotaExceeded, StoreError, Unauthenticated
from tests.support.asgi import client_of
from tests.support.http_door import SETTINGS, Server, problem
from tests.support.planned import PLANNER, Planned
from tests.support.world import RESPONDER


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


async def test_the_steps_of_a_plan_are_told(server: Server, http: httpx.AsyncClient) -> None:
    planned = Planned(server)
    asked = await planned.ask(tenant="acme")
    here = f"/v1/requests/{asked.id}/events"
    await planned.deliver(PLANNER)
    assert (await http.get(f"/v1/requests/{asked.id}")).json()["status"] == "running"
    assert names(await http.get(here)) == ["accepted", "routed", "running"]
    await planned.deliver(RESPONDER)
    seen = events(await http.get(here))
    assert [name for name, _ in seen[3:]] == ["step.started", "step.finished"]
    assert [data["step"] for _, data in seen[3:]] == [
        {"id": "a", "agent": "responder", "status": "running"},
        {"id": "a", "agent": "responder", "status": "succeeded"},
    ]
    await planned.drain()
    told = events(await http.get(here))
    assert [name for name, _ in told if not name.startswith("step.")] == ["accepted", "routed", "running", "finished"]
    assert told[-1][1]["result"]["status"] == "succeeded"
    ended = [data["step"] for name, data in told if name == "step.finished"]
    assert {(step["id"], step["status"]) for step in ended} == {(name, "succeeded") for name in "abcdef"}
    assert len(told) == 4 + 2 * 6


async def test_who_follows_a_plan_is_told_each_step_once_as_it_is_taken(server: Server) -> None:
    planned = Planned(server)
    asked = await planned.ask(tenant="acme")
    told: list[tuple[str, str]] = []
    follower = Follower(server.register, server.results, server.plans)

    async def look() -> None:
        row, result = await server.register.get(f"acme/{asked.id}"), await server.result(asked)
        news = await follower.news(Standing(row, result), server.clock())
        told.extend((progress.name, progress.step.id if progress.step else "") for progress in news)

    class Watched(FakeRunner):
        async def run(self, task: AgentTask) -> AgentAnswer:
            await look()
            return await super().run(task)

    planned.runner = Watched()
    await look()
    while any(server.broker.queues.values()):
        [queue, *_] = [name for name, waiting in server.broker.queues.items() if waiting]
        await planned.deliver(queue)
        await look()
    assert len(told) == len(set(told))
    for step in "abcdef":
        assert told.index(("step.started", step)) < told.index(("step.finished", step))
    assert told.index(("step.finished", "a")) < told.index(("step.started", "e"))
    assert told[-1] == ("finished", "")


def events(answer: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    blocks = [block.splitlines() for block in answer.text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), orjson.loads(data.removeprefix("data: "))) for name, data in blocks]


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


async def test_a_row_that_no_door_wrote_gets_no_result_by_being_cancelled(
    server: Server, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await http.post("/v1/requests", json={"text": "hello", "id": "a"})
    row = server.register.rows["acme/a"]
    server.register.rows["acme/a"] = row.changed(message=row.message.replace('"acme"', '"other"'))
    problem(await http.delete("/v1/requests/a"), 404)
    server.register.rows["acme/a"] = row
    forged = ForgedMessage("a: no grant")
    monkeypatch.setattr(server.gate, "verify", lambda _message: (_ for _ in ()).throw(forged), raising=False)
    problem(await http.delete("/v1/requests/a"), 404)
    assert not [key for key in server.data.objects if key.startswith("results/")]


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


@pytest.mark.parametrize(("path", "method", "name"), openapi.ROUTES)
async def test_without_a_token_that_holds_nothing_is_done(
    server: Server, http: httpx.AsyncClient, path: str, method: str, name: str
) -> None:
    server.who = Unauthenticated("the token does not hold")
    asked = await server.accept(id="a", tenant="acme")
    answer = await http.request(method, path.format(id=asked.id), json={"text": "hello"})
    if name in {"health", "readiness", "document"}:
        assert answer.status_code == 200
        return
    problem(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert list(server.register.rows) == ["acme/a"]
    assert not [key for key in server.data.objects if key.startswith("results/")]


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
