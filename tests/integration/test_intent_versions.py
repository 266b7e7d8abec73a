"""Versions in a real bucket, and real models that change while requests run."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import pytest

from intent.canary import compare
from intent.live import LiveModels
from intent.manifest import MODEL_FILE, check_model, default_dir
from intent.promotions import WHOLE, Change, Pinned, Promotion, PromotionLog
from intent.versions import VersionStore
from tasks import keys
from tasks.contracts.asked import Asked
from tasks.contracts.audit import Event
from tasks.contracts.base import utc_now
from tasks.errors import Conflict, StoreError
from tasks.settings import IntentSettings, Settings
from tasks.stores.connect import Stores
from tests.support import models

PACKAGED = check_model(default_dir())[0].version
TEXT = "Why is the sky blue?"


@pytest.fixture
def chosen(settings: Settings, tmp_path: Path) -> Settings:
    """Settings with a family of this test's own: the bucket is not emptied."""
    family = f"t-{uuid4().hex[:12]}"
    return settings.changed(intent=IntentSettings(family=family, refresh_seconds=0.1, cache_dir=tmp_path / "cache"))


@pytest.fixture
def log(chosen: Settings, stores: Stores) -> PromotionLog:
    return PromotionLog(stores.data, chosen.intent.family)


@pytest.fixture
def versions(chosen: Settings, stores: Stores) -> VersionStore:
    return VersionStore(stores.data, chosen.intent.family)


async def promote(log: PromotionLog, pinned: Pinned, share: float = WHOLE) -> Promotion:
    entry = await log.promotion(await log.latest(), pinned, share, Change(who="tester", at=utc_now()))
    await log.append(entry)
    return entry


async def until(happened: Callable[[], Awaitable[bool]]) -> None:
    give_up = time.monotonic() + 30
    while not await happened():
        assert time.monotonic() < give_up
        await asyncio.sleep(0.02)


def live_of(chosen: Settings, stores: Stores, events: list[Event] | None = None) -> LiveModels:
    report = (lambda _: None) if events is None else events.append
    return LiveModels(chosen, stores.data, stores.board, worker="tester", report=report)


async def version_now(live: LiveModels, request_id: str = "r1") -> str:
    return (await live.classify(Asked(id=request_id, text=TEXT))).model_version


async def test_of_many_promoters_on_a_real_bucket_one_wins_each_number(
    log: PromotionLog, versions: VersionStore
) -> None:
    pinned = [Pinned(log.family, f"m-{number:012x}", f"{number:064x}") for number in range(6)]
    ends = await asyncio.gather(*(promote(log, one) for one in pinned), return_exceptions=True)
    assert {type(end) for end in ends} == {Promotion, Conflict}
    last = await log.latest()
    assert last is not None
    numbers = [entry.number async for entry in log.backwards(last)]
    assert numbers == list(range(len([end for end in ends if isinstance(end, Promotion)]), 0, -1))


async def test_a_version_comes_back_from_the_bucket_as_it_went(versions: VersionStore, tmp_path: Path) -> None:
    version = models.variant(tmp_path / "model")
    pinned, fresh = await versions.publish(tmp_path / "model")
    assert (fresh, pinned.version) == (True, version)
    assert await versions.names() == [version]
    folder = await versions.fetch(pinned, tmp_path / "fetched")
    assert (folder / MODEL_FILE).read_bytes() == (default_dir() / MODEL_FILE).read_bytes()


async def test_models_change_under_load_and_no_request_fails(
    chosen: Settings, stores: Stores, log: PromotionLog, versions: VersionStore, tmp_path: Path
) -> None:
    pinned = []
    for number in range(2):
        models.variant(tmp_path / str(number), threshold=0.4 + number / 10)
        pinned.append((await versions.publish(tmp_path / str(number)))[0])
    live = live_of(chosen, stores)
    await live.start()
    said: Counter[str] = Counter()
    stopping = asyncio.Event()

    async def ask() -> None:
        number = 0
        while not stopping.is_set():
            said[await version_now(live, f"r{number}")] += 1
            number += 1
            await asyncio.sleep(0.005)

    asking = [asyncio.create_task(ask()) for _ in range(8)]
    for one in (*pinned, pinned[0]):
        await promote(log, one)

        async def taken_up(version: str = one.version) -> bool:
            return live.version == version

        await until(taken_up)
        await asyncio.sleep(0.1)
    stopping.set()
    await asyncio.gather(*asking)
    await live.close()
    assert set(said) == {PACKAGED, *(one.version for one in pinned)}
    assert min(said.values()) > 0


@pytest.mark.parametrize("fault", ["graph", "labels", "truncated", "manifest"])
async def test_a_version_that_is_damaged_or_does_not_run_is_refused_and_the_old_one_goes_on(
    chosen: Settings, stores: Stores, log: PromotionLog, versions: VersionStore, tmp_path: Path, fault: str
) -> None:
    folder = tmp_path / "bad"
    models.variant(folder)
    if fault == "graph":  # its digest is right
        (folder / MODEL_FILE).write_bytes(b"no graph at all")
        models.write_manifest(folder, base="minilm", max_length=128)
    if fault == "labels":
        models.write_manifest(folder, base="minilm", labels=["plan_task", "out_of_scope"], max_length=128)
    pinned, _ = await versions.publish(folder)
    if fault == "truncated":
        # Another name for the same files, the graph cut short.
        whole = (folder / MODEL_FILE).read_bytes()
        (folder / MODEL_FILE).write_bytes(whole[: len(whole) // 2])
        family = f"{log.family}-cut"
        for name in (MODEL_FILE, "tokenizer.json", "manifest.json"):
            await stores.data.create(keys.model_file(family, pinned.version, name), (folder / name).read_bytes())
        chosen = chosen.changed(intent=chosen.intent.changed(family=family))
        log, pinned = PromotionLog(stores.data, family), Pinned(family, pinned.version, pinned.manifest)
    if fault == "manifest":
        pinned = Pinned(pinned.family, pinned.version, "0" * 64)
    events: list[Event] = []
    live = live_of(chosen, stores, events)
    await live.start()
    await promote(log, pinned)

    async def refused() -> bool:
        assert await version_now(live) == PACKAGED
        return bool(events)

    await until(refused)
    await asyncio.sleep(0.3)
    assert await version_now(live) == PACKAGED
    assert [(event.action, event.resource) for event in events] == [
        ("model.refused", f"{pinned.family}/{pinned.version}")
    ]
    assert pinned.family in live.facts["refused"]
    await live.close()


@pytest.mark.parametrize("damage", ["changed", "missing"])
async def test_a_fetched_version_that_was_damaged_since_is_fetched_again(
    chosen: Settings, stores: Stores, log: PromotionLog, versions: VersionStore, tmp_path: Path, damage: str
) -> None:
    models.variant(tmp_path / "model")
    pinned, _ = await versions.publish(tmp_path / "model")
    await promote(log, pinned)
    assert chosen.intent.cache_dir is not None
    folder = await versions.fetch(pinned, chosen.intent.cache_dir)
    graph = bytearray((folder / MODEL_FILE).read_bytes())
    graph[len(graph) // 2] ^= 1
    (folder / MODEL_FILE).unlink() if damage == "missing" else (folder / MODEL_FILE).write_bytes(graph)
    live = live_of(chosen, stores)
    await live.start()
    assert await version_now(live) == pinned.version
    await live.close()


async def test_a_canary_is_counted_by_all_workers(
    chosen: Settings, stores: Stores, log: PromotionLog, versions: VersionStore, tmp_path: Path
) -> None:
    models.variant(tmp_path / "model", threshold=0.9999)
    pinned, _ = await versions.publish(tmp_path / "model")
    entry = await promote(log, pinned, 0.5)
    workers = [live_of(chosen, stores) for _ in range(2)]
    for live in workers:
        await live.start()

        async def has_canary(live: LiveModels = live) -> bool:
            return bool(live.facts["canaries"])

        await until(has_canary)
    ids = [f"r{number}" for number in range(40)]
    said = [[await version_now(live, request_id) for request_id in ids] for live in workers]
    assert said[0] == said[1]
    for live in workers:
        await live.close()
    key = keys.canary(chosen.intent.family, entry.number)
    report = compare(await stores.board.totals(key))
    assert report["canary"]["requests"] == 2 * said[0].count(pinned.version)
    assert report["stable"]["requests"] == 2 * said[0].count(PACKAGED)
    assert (report["stable"]["abstained"], report["canary"]["abstained"]) == (0.0, 1.0)
    assert report["distance"] == 1.0
    assert 0 < await stores.link.call("TTL", key) <= 7 * 24 * 3600


async def test_a_bucket_that_fails_does_not_keep_a_worker_from_starting(
    chosen: Settings, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: PromotionLog) -> Promotion | None:
        raise StoreError("away")

    monkeypatch.setattr(PromotionLog, "latest", away)
    live = live_of(chosen, stores)
    await live.start()
    assert await version_now(live) == PACKAGED
    await live.close()
