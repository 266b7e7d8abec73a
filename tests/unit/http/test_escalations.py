"""Operators answer over HTTP what waits for a person, and nothing of another tenant."""

from __future__ import annotations

import httpx
import pytest

from handlers.http.jwt import Principal
from tasks.access.gate import Caller
from tasks.access.grants import REVISE
from tasks.access.signing import GRANT
from tasks.agents.fake import FakeRunner
from tasks.agents.types import AgentAnswer, AgentTask
from tasks.audit import read as trail
from tasks.contracts.asked import Asked
from tasks.contracts.request import Request
from tasks.contracts.result import IntentInfo
from tests.support import build, trust
from tests.support.http_door import Server, problem
from tests.support.world import HUMAN

TEXT = "It is in Bergen."


def brief(_task: AgentTask) -> AgentAnswer:
    return AgentAnswer(output="Call them.", model="fake", escalated=True)


async def wants_a_person(_asked: Asked) -> IntentInfo:
    return build.intent("talk_to_human")


async def escalated(server: Server, request_id: str = "a", tenant: str = "acme") -> Request:
    asked = await server.accept("Where is my parcel?", id=request_id, tenant=tenant)
    await server.deliver(server.route(wants_a_person), "requests")
    await server.deliver(server.work(FakeRunner(brief), pool=HUMAN), HUMAN)
    return asked


async def test_an_escalation_is_listed_read_and_answered(server: Server, http: httpx.AsyncClient) -> None:
    await escalated(server)
    [listed] = (await http.get("/v1/escalations?open=true")).json()["escalations"]
    assert (listed["request_id"], listed["revision"], listed["answered_at"]) == ("a", 1, None)
    shown = (await http.get(listed["links"]["self"])).json()
    assert (shown["text"], shown["brief"], shown["reason"]) == ("Where is my parcel?", "Call them.", "talk_to_human")
    assert shown["answer"] is None
    assert "message" not in shown
    given = await http.post(listed["links"]["answer"], json={"text": TEXT})
    assert (given.status_code, given.json()["revision"], given.json()["answered_by"]) == (202, 2, "alice")
    assert (await http.get("/v1/requests/a")).json()["status"] == "routed"
    await server.deliver(server.work(FakeRunner(), pool=HUMAN), HUMAN)
    ended = (await http.get(given.json()["links"]["self"])).json()
    assert (ended["status"], ended["result"]["revision"], ended["result"]["output"]) == ("succeeded", 2, TEXT)
    shown = (await http.get("/v1/escalations/a")).json()
    assert (shown["answer"]["text"], shown["newest"]) == (TEXT, {"revision": 2, "status": "succeeded"})
    assert (await http.get("/v1/escalations?open=true")).json() == {"escalations": []}
    assert len((await http.get("/v1/escalations?open=false")).json()["escalations"]) == 1
    actions = {record.action.value for record in await trail.read(server.audit_store, request_id="a")}
    assert {"escalation.read", "escalation.answered"} <= actions


async def test_the_first_answer_stands(server: Server, http: httpx.AsyncClient) -> None:
    await escalated(server)
    here = "/v1/escalations/a/answer"
    assert (await http.post(here, json={"text": TEXT})).status_code == 202
    assert (await http.post(here, json={"text": TEXT})).status_code == 200
    assert "alice" in problem(await http.post(here, json={"text": "Another one."}), 409)["detail"]


async def test_an_answer_can_be_cancelled_like_any_revision(server: Server, http: httpx.AsyncClient) -> None:
    await escalated(server)
    await http.post("/v1/escalations/a/answer", json={"text": TEXT})
    assert (await http.delete("/v1/requests/a")).json()["result"]["revision"] == 2
    assert (await http.get("/v1/requests/a")).json()["status"] == "cancelled"


async def test_pages_have_every_escalation_once(server: Server, http: httpx.AsyncClient) -> None:
    for number in range(7):
        await escalated(server, f"n{number}")
        await escalated(server, f"n{number}", "other")
    for number in (1, 2, 5):
        await http.post(f"/v1/escalations/n{number}/answer", json={"text": TEXT})

    async def paged(query: str) -> list[str]:
        found, place = [], ""
        while True:
            page = (await http.get(f"/v1/escalations?limit=2{query}{place}")).json()
            assert len(page["escalations"]) <= 2
            found += [item["request_id"] for item in page["escalations"]]
            if "next" not in page:
                return found
            place = f"&after={page['next']}"

    assert await paged("") == [f"n{number}" for number in range(7)]
    assert await paged("&open=true") == ["n0", "n3", "n4", "n6"]
    assert await paged("&open=false") == ["n1", "n2", "n5"]


async def test_a_page_ends_where_it_would_look_at_too_many(
    server: Server, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.escalations._MOST_LOOKED_AT", 2)
    for number in range(3):
        await escalated(server, f"n{number}")
    page = (await http.get("/v1/escalations?open=false")).json()
    assert page == {"escalations": [], "next": "n1.r1"}
    assert (await http.get("/v1/escalations?open=false&after=n1.r1")).json() == {"escalations": []}


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("open=yes", "open"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("after=a", "after"),
        ("after=../x.r1", "after"),
        ("after=a.r9999999999", "after"),
    ],
)
async def test_what_is_wrong_with_a_query_is_named(http: httpx.AsyncClient, query: str, named: str) -> None:
    assert problem(await http.get(f"/v1/escalations?{query}"), 400)["detail"].startswith(named)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"text": ""}', b'{"text": " "}', b'{"text": "x", "as": "y"}', b"[]"])
async def test_what_is_wrong_with_an_answer_is_named(server: Server, http: httpx.AsyncClient, body: bytes) -> None:
    await escalated(server)
    sent = {"content": body, "headers": {"content-type": "application/json"}}
    problem(await http.post("/v1/escalations/a/answer", **sent), 400)  # type: ignore[arg-type]
    large = {"content": b'{"text": "' + b"x" * 2000 + b'"}', "headers": {"content-type": "application/json"}}
    problem(await http.post("/v1/escalations/a/answer", **large), 413)  # type: ignore[arg-type]
    event = {"content": b"{}", "headers": {"content-type": "application/cloudevents+json"}}
    problem(await http.post("/v1/escalations/a/answer", **event), 415)  # type: ignore[arg-type]


async def test_another_tenants_escalation_is_not_there(server: Server, http: httpx.AsyncClient) -> None:
    await escalated(server)
    server.who = Principal(Caller("bob", ("operator",)), "other")
    assert (await http.get("/v1/escalations")).json() == {"escalations": []}
    problem(await http.get("/v1/escalations/a"), 404)
    problem(await http.post("/v1/escalations/a/answer", json={"text": TEXT}), 404)
    assert await server.escalations.answer("acme", "a", 1) is None


async def test_what_waits_for_nobody_cannot_be_answered(server: Server, http: httpx.AsyncClient) -> None:
    await server.accept(id="a", tenant="acme")
    problem(await http.post("/v1/escalations/a/answer", json={"text": TEXT}), 404)
    problem(await http.get("/v1/escalations/none"), 404)


async def test_who_may_not_answer_may_not_look_either_and_that_is_on_record(
    server: Server, http: httpx.AsyncClient
) -> None:
    own = trust.scope(purposes=(GRANT, REVISE), tenants=("acme",), subjects=("*",), roles=("user", "operator"))
    server.gate = trust.gate(trust.keys(own), server.clock)
    await escalated(server)
    server.who = Principal(Caller("uma", ("user",)), "acme")
    for answer in (
        await http.get("/v1/escalations"),
        await http.get("/v1/escalations/a"),
        await http.post("/v1/escalations/a/answer", json={"text": TEXT}),
    ):
        assert "escalation:answer" in problem(answer, 403)["detail"]
    assert await server.escalations.answer("acme", "a", 1) is None
    records = await trail.read(server.audit_store)
    assert [record.actor for record in records if record.action == "permission.violation"] == ["uma"] * 3
    server.who = Principal(Caller("olga", ("operator",)), "acme")
    assert (await http.post("/v1/escalations/a/answer", json={"text": TEXT})).status_code == 202
    await server.deliver(server.work(FakeRunner(), pool=HUMAN), HUMAN)  # by a grant that the hop verifies
    assert (await http.get("/v1/escalations?open=false")).json()["escalations"][0]["request_id"] == "a"
    found = await server.results.newest("acme", "a")
    assert found is not None
    assert (found.status, found.agent and found.agent.model) == ("succeeded", "olga")
