"""Messages that no door wrote, put straight on the queues of a stack with real keys, while real workers run."""

from __future__ import annotations

import asyncio
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handlers.producer import AsyncProducer
from scaling import keyfiles
from tasks import keys
from tasks.access.gate import Caller
from tasks.access.signing import GRANT, Keys, Scope
from tasks.access.sources import load_keys
from tasks.audit.read import read
from tasks.contracts.base import utc_now
from tasks.contracts.message import Body, Message
from tasks.contracts.request import Request
from tasks.contracts.result import IntentInfo, Result, Status
from tasks.errors import Denied, NotReady
from tasks.settings import Settings, SigningSettings
from tasks.stores.broker import Parcel
from tasks.stores.connect import Stores, connect
from tests.e2e.conftest import Fleet
from tests.support import trust

RESPONDER = keys.agent_pool("responder")
QUEUES = [queue for pool in (keys.INTENT_POOL, RESPONDER) for queue in keys.queues(pool)]
LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)


def message_for(queue: str, request: Request, grant: str | None) -> Message:
    """As the hop before ``queue`` would have left it."""
    message = Message(
        id=request.id,
        tenant=request.tenant,
        digest=request.digest(),
        grant=grant,
        body=Body(encoding="json", data=request.body().decode()),
        priority=request.priority,
        accepted_at=utc_now(),
    )
    if queue in keys.queues(keys.INTENT_POOL):
        return message
    intent = IntentInfo(label="answer_question", confidence=1.0, model_version="m")
    return message.changed(agent_type="responder", intent=intent)


def forgeries(settings: Settings, tenant: str, queue: str) -> dict[str, Message]:
    """One message of each kind for ``queue``, by the name of what is wrong with it."""
    priority = "high" if queue.endswith(".high") else "normal"
    local = load_keys(settings)

    def asked(kind: str) -> Request:
        return Request(id=f"{kind}-{queue}", tenant=tenant, text="Give me everything.", priority=priority)

    def by(keyset: Keys, request: Request, now: datetime) -> str | None:
        gate = trust.gate(keyset, lambda: now)
        return gate.mint(request, Caller("local", ("admin",)))

    now = utc_now()
    stranger = trust.keys(trust.scope(subjects=("local",), roles=("admin",)))
    rebodied = message_for(queue, asked("rebodied"), by(local, asked("rebodied"), now))
    evil = asked("rebodied").model_copy(update={"text": "Something else."})
    other = asked("cross").model_copy(update={"tenant": f"{tenant}-other"})
    return {
        "unsigned": message_for(queue, asked("unsigned"), None),
        "stranger": message_for(queue, asked("stranger"), by(stranger, asked("stranger"), now)),
        "borrowed": message_for(queue, asked("borrowed"), by(local, asked("somebody-elses"), now)),
        "rebodied": rebodied.changed(body=Body(encoding="json", data=evil.body().decode())),
        "cross": message_for(queue, other, by(local, other, now)).changed(tenant=tenant),
        "revision": message_for(queue, asked("revision"), by(local, asked("revision"), now)).changed(revision=2),
    }


async def put(stores: Stores, queue: str, message: Message) -> None:
    ref = keys.ref(message.tenant, message.id)
    await stores.broker.publish([Parcel(queue, ref, message.to_json(), time.time())])


async def until_idle(stores: Stores) -> None:
    for _ in range(300):
        depths = await stores.broker.depths([keys.INTENT_POOL, RESPONDER])
        if not any(depth.total for depth in depths.values()):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the queues do not become empty")


async def test_forged_messages_on_every_queue_execute_nothing_and_change_no_outcome(
    settings: Settings, fleet: Fleet
) -> None:
    tenant = f"forged-{time.time_ns()}"
    fleet.sweeper()
    async with connect(settings) as stores, AsyncProducer(settings, tenant=tenant) as producer:
        put_there: list[Message] = []
        live = await producer.submit("What is a queue?", id="live")
        for queue in QUEUES:
            for message in forgeries(settings, tenant, queue).values():
                put_there.append(message)
                # Each also under the name of a request that is open.
                put_there.append(message.changed(id=live))
                for forged in put_there[-2:]:
                    await put(stores, queue, forged)
        workers = [fleet.worker(keys.INTENT_POOL), fleet.worker(RESPONDER)]
        result = await producer.result(live, 60)
        await until_idle(stores)
        assert (result.status, result.request_digest) == (
            Status.SUCCEEDED,
            Request(tenant=tenant, text="What is a queue?").digest(),
        )
        assert await stores.broker.length(keys.QUARANTINE) == len(put_there)
        assert [key async for key in stores.data.list(f"results/{tenant}/")] == [keys.result(tenant, live)]
        records = [record for record in await read(stores.audit) if record.tenant == tenant]
        forged_ids = [record.request_id for record in records if record.action == "grant.forged"]
        assert sorted(forged_ids) == sorted(message.id for message in put_there)
        executed = [record.request_id for record in records if record.action == "agent.started"]
        assert executed == [live]
        assert [worker.poll() for worker in workers] == [None, None]


async def written(stores: Stores, tenant: str, request_id: str) -> Result:
    """Return a result once it is there: no door opened a row that says that it will be."""
    async with asyncio.timeout(60):
        while (found := await stores.results.get(tenant, request_id)) is None:
            await asyncio.sleep(0.1)
    return found


async def test_expired_and_replayed_messages_execute_nothing_and_are_on_record(
    settings: Settings, fleet: Fleet
) -> None:
    tenant = f"old-{time.time_ns()}"
    local = load_keys(settings)
    async with connect(settings) as stores, AsyncProducer(settings, tenant=tenant) as producer:
        done = await producer.submit("What is a queue?", id="done")
        await producer.submit_many([])  # announced
        [first] = [row for row in [await stores.register.get(keys.ref(tenant, done))] if row]
        workers = [fleet.worker(keys.INTENT_POOL), fleet.worker(RESPONDER)]
        before = await producer.result(done, 60)
        grants: dict[str, Request] = {}
        for queue in QUEUES:
            priority = "high" if queue.endswith(".high") else "normal"
            request = Request(id=f"expired-{queue}", tenant=tenant, text="Old news.", priority=priority)
            grants[request.id] = request
            grant = trust.gate(local, lambda: LONG_AGO).mint(request, Caller("local", ("admin",)))
            await put(stores, queue, message_for(queue, request, grant))
        await stores.broker.publish([Parcel("requests", "", first.message, time.time())])
        for request_id in grants:
            result = await written(stores, tenant, request_id)
            assert (result.status, result.output) == (Status.REJECTED, "")
            assert result.error is not None
            assert "expired" in result.error.message
        await until_idle(stores)
        assert await producer.result(done, 5) == before
        records = [record for record in await read(stores.audit) if record.tenant == tenant]
        actions = {(record.request_id, record.action.value) for record in records}
        assert {(request_id, "permission.violation") for request_id in grants} <= actions
        assert (done, "message.replayed") in actions
        assert [record.request_id for record in records if record.action == "agent.started"] == [done]
        assert [worker.poll() for worker in workers] == [None, None]


async def test_a_producer_signs_for_itself_alone(settings: Settings, tmp_path: Path) -> None:
    ring, private = tmp_path / "ring.json", tmp_path / "keys.json"
    # Its audit is signed as everybody's: what it writes stays in a bucket that others verify.
    shutil.copyfile(settings.signing.ring, ring)
    scope = Scope(purposes=(GRANT,), tenants=("acme",), subjects=("acme-web",), roles=("user",))
    keyfiles.add("acme-web", scope, private=private, ring=ring)
    own = settings.changed(signing=SigningSettings(keys=(*settings.signing.keys, str(private)), ring=str(ring)))
    async with AsyncProducer(own, tenant="acme", identity="acme-web") as producer:
        assert await producer.submit("What is a queue?")
        for fields, told in (
            ({"tenant": "evil"}, "tenant 'evil'"),
            ({"model": "gpt-4"}, "model:override"),
            ({"intent": "call_api"}, "intent:override"),
        ):
            with pytest.raises(Denied, match=told):
                await producer.submit("What is a queue?", **fields)
        async with connect(own) as stores:
            found = await read(stores.audit)
    rejected = [record for record in found if record.action == "request.rejected" and record.actor == "acme-web"]
    assert len(rejected) == 3


async def test_without_keys_nothing_starts(settings: Settings) -> None:
    with pytest.raises(NotReady, match="sluice keys new"):
        async with AsyncProducer(settings.changed(signing=SigningSettings())):
            pass
