"""Models that change while requests run: noticing, swapping, refusing, falling back, canaries, tenants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from intent.canary import compare
from intent.classifier import Prediction
from intent.live import LiveModels
from intent.promotions import PACKAGED, WHOLE, Change, Pinned, PromotionLog
from intent.routes import unrouted
from tasks import keys
from tasks.contracts.asked import Asked
from tasks.contracts.audit import Event
from tasks.errors import IntegrityError, NotFound, StoreError
from tasks.settings import IntentSettings, RoutingSettings, Settings
from tasks.stores.objects import MemoryObjectStore
from tests.support.build import EPOCH
from tests.unit.intent.test_canary import Counts

A, B, C = (Pinned("intent", f"m-{name * 12}", name * 64) for name in "abc")


class Store(MemoryObjectStore):
    """Counts reads, and is away while a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.asked: list[str] = []

    async def get(self, key: str) -> bytes:
        self.asked.append(f"get {key}")
        if self.away:
            raise StoreError("away")
        return await super().get(key)

    async def list(self, prefix: str) -> AsyncIterator[str]:
        self.asked.append(f"list {prefix}")
        if self.away:
            raise StoreError("away")
        async for key in super().list(prefix):
            yield key


class Fake:
    """A model whose answers a test may hold up."""

    def __init__(self, version: str, go: asyncio.Event) -> None:
        self.version = version
        self.floor = 0.5
        self.go = go
        self.closed = False

    async def submit(self, text: str) -> Prediction:
        assert not self.closed
        await self.go.wait()
        assert not self.closed
        return Prediction("plan_task", 0.9 if text != "what?" else 0.4, self.version)

    async def close(self) -> None:
        self.closed = True


class Loads:
    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.loaded: list[Pinned] = []
        self.fail: dict[Pinned, Exception] = {}
        self.models: dict[Pinned, Fake] = {}

    async def __call__(self, pinned: Pinned) -> tuple[Any, int]:
        self.loaded.append(pinned)
        await asyncio.sleep(0)
        if pinned in self.fail:
            raise self.fail[pinned]
        model = self.models[pinned] = Fake(str(pinned), self.go)
        return model, 1


class Bench:
    """A worker's models over fakes; it looks at the log when a test says so."""

    def __init__(self, **chosen: Any) -> None:
        self.store = Store()
        self.counts = Counts()
        self.loads = Loads()
        self.events: list[Event] = []
        settings = Settings(intent=IntentSettings(refresh_seconds=3600, **chosen))
        self.live = LiveModels(
            settings, self.store, self.counts, worker="w", report=self.events.append, load=self.loads, clock=lambda: 0.0
        )

    async def promote(self, pinned: Pinned, share: float = WHOLE) -> None:
        log = PromotionLog(self.store, pinned.family)
        await log.append(await log.promotion(await log.latest(), pinned, share, Change(who="alice", at=EPOCH)))

    async def roll_back(self) -> None:
        log = PromotionLog(self.store, "intent")
        await log.append(await log.rollback(await log.latest(), Change(who="alice", at=EPOCH)))

    async def start(self) -> None:
        await self.live.start()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(30):
            await asyncio.sleep(0)

    async def reads(self, request_id: str = "r1", *, tenant: str = "default", text: str = "hello") -> str:
        asked = Asked(id=request_id, tenant=tenant, text=text)
        return (await self.live.classify(asked)).model_version


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    made.loads.go.set()
    await made.live.close()


async def test_where_nothing_was_promoted_the_packaged_model_serves_after_one_list(bench: Bench) -> None:
    await bench.live.start()
    assert bench.store.asked == [f"list {keys.promotions('intent')}"]
    assert await bench.reads() == str(PACKAGED)
    await bench.settle()
    bench.store.asked.clear()
    await bench.live.refresh()
    assert bench.store.asked == [f"get {keys.promotion('intent', 1)}"]


async def test_a_starting_worker_loads_what_is_promoted_and_nothing_else(bench: Bench) -> None:
    await bench.promote(A)
    bench.store.asked.clear()
    await bench.live.start()
    assert len(bench.store.asked) == 2
    assert bench.loads.loaded == [A]
    assert await bench.reads() == A.version
    assert bench.live.version == A.version


async def test_a_configured_directory_wins_and_nothing_is_looked_at() -> None:
    bench = Bench(model_dir=Path("mine"))
    await bench.promote(A)
    bench.store.asked.clear()
    await bench.start()
    assert (bench.store.asked, bench.loads.loaded) == ([], [PACKAGED])
    assert await bench.reads() == str(PACKAGED)
    await bench.live.close()


async def test_a_promotion_is_taken_up_and_the_old_model_answers_what_it_was_asked(bench: Bench) -> None:
    await bench.start()
    bench.loads.go.clear()
    before = [asyncio.create_task(bench.reads(f"r{number}")) for number in range(3)]
    await bench.settle()
    await bench.promote(A)
    refreshing = asyncio.create_task(bench.live.refresh())
    await bench.settle()
    after = asyncio.create_task(bench.reads("r9"))
    await bench.settle()
    bench.loads.go.set()
    assert await asyncio.gather(*before) == [str(PACKAGED)] * 3
    assert await after == A.version
    await refreshing
    assert bench.loads.models[PACKAGED].closed
    assert bench.live.cache.loaded == (A,)
    assert bench.live.facts["model_version"] == A.version


async def test_while_a_version_is_loading_the_old_one_serves(bench: Bench) -> None:
    await bench.start()
    await bench.promote(A)
    refreshing = asyncio.create_task(bench.live.refresh())
    for _ in range(3):
        assert await bench.reads() in {str(PACKAGED), A.version}
    await refreshing
    assert await bench.reads() == A.version


@pytest.mark.parametrize("error", [IntegrityError("damaged"), NotFound("no such file"), RuntimeError("does not run")])
async def test_a_version_that_cannot_be_served_is_refused_once_and_the_old_one_goes_on(
    bench: Bench, error: Exception
) -> None:
    await bench.promote(A)
    await bench.start()
    bench.loads.fail[B] = error
    await bench.promote(B)
    for _ in range(3):
        await bench.live.refresh()
        assert await bench.reads() == A.version
    assert bench.loads.loaded.count(B) == 1
    assert [(event.action, event.decision, event.reason) for event in bench.events] == [
        ("model.refused", "deny", str(error))
    ]
    assert bench.events[0].resource == f"intent/{B.version}"
    assert bench.live.facts["refused"] == {"intent": f"{B}: {error}"}
    await bench.promote(C)
    await bench.live.refresh()
    assert await bench.reads() == C.version
    assert bench.live.facts["refused"] == {}


async def test_a_store_that_is_away_is_tried_again_without_a_refusal(bench: Bench) -> None:
    await bench.start()
    await bench.promote(A)
    bench.store.away = True
    await bench.live.refresh()
    bench.store.away = False
    bench.loads.fail[A] = StoreError("away")
    await bench.live.refresh()
    assert await bench.reads() == str(PACKAGED)
    assert not bench.events
    bench.loads.fail.clear()
    await bench.live.refresh()
    assert await bench.reads() == A.version


async def test_a_bucket_that_is_away_at_the_start_is_looked_at_later(bench: Bench) -> None:
    await bench.promote(A)
    bench.store.away = True
    await bench.start()
    assert await bench.reads() == str(PACKAGED)
    bench.store.away = False
    await bench.live.refresh()
    assert await bench.reads() == A.version


@pytest.mark.parametrize(("error", "refused"), [(IntegrityError("damaged"), 1), (StoreError("away"), 0)])
async def test_where_the_promoted_version_cannot_be_had_at_the_start_the_packaged_one_serves(
    bench: Bench, error: Exception, refused: int
) -> None:
    await bench.promote(A)
    bench.loads.fail[A] = error
    await bench.start()
    assert await bench.reads() == str(PACKAGED)
    assert len(bench.events) == refused
    bench.loads.fail.clear()
    await bench.live.refresh()
    assert await bench.reads() == (str(PACKAGED) if refused else A.version)


async def test_an_entry_that_nobody_understands_changes_nothing(bench: Bench) -> None:
    await bench.start()
    bench.store.objects[keys.promotion("intent", 1)] = b"junk"
    await bench.live.refresh()
    assert await bench.reads() == str(PACKAGED)


async def test_a_rollback_is_taken_up_like_a_promotion(bench: Bench) -> None:
    await bench.promote(A)
    await bench.start()
    await bench.promote(B)
    await bench.live.refresh()
    await bench.roll_back()
    await bench.live.refresh()
    assert await bench.reads() == A.version
    await bench.roll_back()
    await bench.live.refresh()
    assert await bench.reads() == str(PACKAGED)


async def test_a_canary_gets_its_share_and_the_same_requests_each_time(bench: Bench) -> None:
    await bench.promote(A)
    await bench.promote(B, 0.2)
    await bench.start()
    ids = [f"r{number}" for number in range(500)]
    first = [await bench.reads(request_id) for request_id in ids]
    assert [await bench.reads(request_id) for request_id in ids] == first
    assert first.count(B.version) / len(ids) == pytest.approx(0.2, abs=0.06)
    assert set(first) == {A.version, B.version}
    assert await bench.reads("r0", text="what?") in {A.version, B.version}
    await bench.live.flush()
    report = compare(bench.counts.hashes[keys.canary("intent", 2)])
    assert report["stable"]["requests"] + report["canary"]["requests"] == 1001
    assert report["canary"]["requests"] == pytest.approx(2 * first.count(B.version), abs=1)
    assert report["stable"]["abstained"] + report["canary"]["abstained"] > 0
    assert bench.live.facts["canaries"] == {"intent": {"version": B.version, "share": 0.2}}


async def test_nothing_is_counted_without_a_canary(bench: Bench) -> None:
    await bench.promote(A)
    await bench.start()
    await bench.reads()
    await bench.live.flush()
    assert not bench.counts.hashes


async def test_a_canary_that_is_refused_leaves_everything_to_the_stable_version(bench: Bench) -> None:
    await bench.promote(A)
    bench.loads.fail[B] = IntegrityError("damaged")
    await bench.promote(B, 0.5)
    await bench.start()
    assert {await bench.reads(f"r{number}") for number in range(20)} == {A.version}
    assert len(bench.events) == 1


async def test_a_tenant_may_have_a_model_of_its_own() -> None:
    bench = Bench(tenants={"acme": "acme-intent", "late": "late-intent"})
    theirs = Pinned("acme-intent", "m-dddddddddddd", "d" * 64)
    await bench.promote(A)
    await bench.promote(theirs)
    await bench.start()
    assert await bench.reads(tenant="acme") == theirs.version
    assert await bench.reads(tenant="late") == A.version  # nothing of its own yet
    assert await bench.reads() == A.version
    await bench.promote(B)
    await bench.live.refresh()
    assert set(bench.live.cache.loaded) == {B, theirs}
    await bench.live.close()


async def test_a_tenants_version_that_cannot_be_served_leaves_it_to_the_common_one() -> None:
    bench = Bench(tenants={"acme": "acme-intent"})
    theirs = Pinned("acme-intent", "m-dddddddddddd", "d" * 64)
    await bench.promote(A)
    await bench.promote(theirs)
    bench.loads.fail[theirs] = IntegrityError("damaged")
    await bench.start()
    assert await bench.reads(tenant="acme") == A.version
    assert await bench.reads(tenant="acme") == A.version
    assert len(bench.events) == 1
    await bench.live.close()


async def test_a_model_that_was_given_up_is_loaded_again_when_it_is_wanted() -> None:
    bench = Bench(tenants={"acme": "acme-intent"}, cache_mb=1 / 2**20)
    theirs = Pinned("acme-intent", "m-dddddddddddd", "d" * 64)
    await bench.promote(A)
    await bench.promote(theirs)
    await bench.start()
    for _ in range(3):
        assert await bench.reads(tenant="acme") == theirs.version
        assert await bench.reads() == A.version
        assert len(bench.live.cache.loaded) == 1
    assert bench.loads.loaded.count(theirs) == 3
    await bench.live.close()


def test_labels_without_a_route_and_routes_without_a_label_are_named() -> None:
    routing = RoutingSettings(intents={"refund": "executor", "gossip": "planner"})
    labels = ["plan_task", "refund", "invoice", "out_of_scope"]
    assert unrouted(labels, routing) == (["invoice"], ["gossip"])
    assert unrouted(labels[:2], RoutingSettings(intents={"refund": "executor"})) == ([], [])
