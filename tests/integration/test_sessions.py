"""Sessions on real servers: the cache and its seals, deletion, listings, and what they cost in calls."""

import asyncio
import time
from typing import Any

import pytest

from tasks import keys
from tasks.access.seals import AgentSeals
from tasks.access.signing import GRANT, Keys, audit_purpose
from tasks.access.sources import load_keys
from tasks.contracts.session import SessionVersion
from tasks.settings import Settings
from tasks.stores.connect import Stores
from tasks.stores.session_cache import SessionCache
from tasks.stores.sessions import SessionStore
from tests.support import build, trust

STATE = {"llm_context": {"messages": [{"type": "UserMessage", "content": "hello " * 200, "source": "user"}]}}


def version(tenant: str, number: int, **fields: Any) -> SessionVersion:
    result = build.result(tenant=tenant, session_id="s")
    standard = {"saved_at": build.EPOCH, "state": STATE, "result": result}
    return SessionVersion(tenant=tenant, session_id="s", version=number, **{**standard, **fields})


def cache(stores: Stores, keyset: Keys, pools: str = "agents.responder", seconds: int = 60) -> SessionCache:
    return SessionCache(stores.link, seconds=seconds, seals=AgentSeals(keyset, pools))


@pytest.fixture
def keyset(settings: Settings) -> Keys:
    return load_keys(settings)


async def test_what_one_worker_keeps_another_reads(stores: Stores, keyset: Keys, tenant: str) -> None:
    made = version(tenant, 7)
    await cache(stores, keyset).keep(made)
    found = await cache(stores, keyset, "agents.executor+intent").get(tenant, "s")
    assert found is not None
    assert (found.number, found.version) == (7, made)
    entry = keys.session_cache(tenant, "s")
    assert len(await stores.link.call("HGET", entry, "data")) < len(made.to_bytes()) // 2
    assert 0 < await stores.link.call("TTL", entry) <= 60


async def test_the_cache_is_not_set_back_and_can_be_switched_off(stores: Stores, keyset: Keys, tenant: str) -> None:
    kept = cache(stores, keyset)
    for number in (3, 2):
        await kept.keep(version(tenant, number))
    found = await kept.get(tenant, "s")
    assert found is not None
    assert found.number == 3
    off = cache(stores, keyset, seconds=0)
    await off.keep(version(tenant, 4))
    assert await off.get(tenant, "s") is None


@pytest.mark.parametrize("field", ["data", "seal"])
async def test_an_entry_that_somebody_wrote_into_redis_is_only_a_hint(
    stores: Stores, keyset: Keys, tenant: str, field: str
) -> None:
    kept = cache(stores, keyset)
    await kept.keep(version(tenant, 1))
    await kept.keep(version(f"{tenant}-other", 1))
    other = await stores.link.call("HGET", keys.session_cache(f"{tenant}-other", "s"), field)
    for forged in (b"", b"x y z", b"\xff", other):
        await stores.link.call("HSET", keys.session_cache(tenant, "s"), field, forged)
        found = await kept.get(tenant, "s")
        assert found is not None
        assert (found.number, found.version) == (1, None)


async def test_a_key_that_is_no_agent_pools_vouches_for_nothing(stores: Stores, tenant: str) -> None:
    door, intent, agents = (
        trust.scope(purposes=(audit_purpose(name),)) for name in ("door", "intent", "agents.responder")
    )
    keyset = trust.keys(door, intent, agents, trust.scope(purposes=(GRANT,)))
    reader = cache(stores, keyset)
    for pools in ("door", "intent"):
        await stores.link.call("DEL", keys.session_cache(tenant, "s"))
        await cache(stores, keyset, pools).keep(version(tenant, 1))
        found = await reader.get(tenant, "s")
        assert found is not None
        assert found.version is None
    await cache(stores, keyset).keep(version(tenant, 2))
    found = await reader.get(tenant, "s")
    assert found is not None
    assert found.version is not None


async def test_a_cache_that_is_away_costs_a_listing(
    settings: Settings, keyset: Keys, stores: Stores, tenant: str
) -> None:
    from tasks.stores.link import Link

    away = Link("redis://127.0.0.1:1/0", pauses=())
    sessions = SessionStore(stores.data, SessionCache(away, seconds=60, seals=AgentSeals(keyset, "agents.responder")))
    made = version(tenant, 1)
    await sessions.create(made)
    await sessions.keep(made)
    assert await sessions.remembered(tenant, "s") is None
    assert await sessions.latest(tenant, "s") == made
    await away.close()


async def test_a_thousand_and_some_versions_are_found_with_and_without_a_hint(
    stores: Stores, keyset: Keys, tenant: str
) -> None:
    sessions = SessionStore(stores.data, cache(stores, keyset))
    small = {"state": {}, "result": build.result(tenant=tenant, session_id="s")}
    await asyncio.gather(*(sessions.create(version(tenant, number, **small)) for number in range(1, 1102)))
    listed = await sessions.latest(tenant, "s")
    assert listed is not None
    assert listed.version == 1101
    await sessions.keep(listed)
    begun = time.perf_counter()
    hint = await sessions.remembered(tenant, "s")
    assert await sessions.latest(tenant, "s", hint=hint) == listed
    assert time.perf_counter() - begun < 1
    [summary] = await sessions.summaries(tenant)
    assert (summary.session_id, summary.version, summary.deleted) == ("s", 1101, False)


async def test_deleting_takes_the_contents_and_leaves_the_places_taken(
    stores: Stores, keyset: Keys, tenant: str
) -> None:
    sessions = SessionStore(stores.data, cache(stores, keyset))
    for number in (1, 2):
        await sessions.create(version(tenant, number))
    await sessions.keep(await sessions.get(tenant, "s", 2))
    deletion = version(tenant, 3, state={}, result=None, deleted_by="olga")
    assert await sessions.delete(deletion)
    assert not await sessions.delete(deletion)
    hint = await sessions.remembered(tenant, "s")
    assert hint is not None
    assert (hint.number, hint.version) == (3, None)
    assert [number async for number in sessions.erase(deletion)] == [1, 2]
    for number in (1, 2):
        assert (await sessions.get(tenant, "s", number)).result is None
    late = cache(stores, keyset)
    await late.keep(version(tenant, 2))
    assert await sessions.latest(tenant, "s", hint=await sessions.remembered(tenant, "s")) == deletion
    [summary] = await sessions.summaries(tenant)
    assert (summary.version, summary.deleted) == (3, True)
