"""Loaded models: each once, bounded, never taken from who uses them."""

import asyncio
from collections import Counter

import pytest

from intent.cache import ModelCache
from tasks.errors import IntegrityError, NotReady


class Loaded:
    def __init__(self, name: str) -> None:
        self.name = name
        self.closed = False

    async def close(self) -> None:
        self.closed = True


class Loads:
    """Loads models that cost 10 each; a test may hold it up or make it fail."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.made: list[Loaded] = []
        self.free = asyncio.Event()
        self.free.set()
        self.fail: Exception | None = None

    async def __call__(self, name: str) -> tuple[Loaded, int]:
        self.count[name] += 1
        await self.free.wait()
        if self.fail:
            raise self.fail
        self.made.append(Loaded(name))
        return self.made[-1], 10


@pytest.fixture
def loads() -> Loads:
    return Loads()


def cache_of(loads: Loads, limit: int = 20) -> ModelCache[str, Loaded]:
    return ModelCache(loads, limit)


async def name(model: Loaded) -> str:
    assert not model.closed
    return model.name


async def test_a_model_is_loaded_once_for_all_who_want_it(loads: Loads) -> None:
    cache = cache_of(loads)
    assert await asyncio.gather(*(cache.use("a", name) for _ in range(5))) == ["a"] * 5
    assert loads.count == {"a": 1}
    assert "a" in cache
    assert cache.cost == 10


async def test_the_least_recently_used_one_is_given_up(loads: Loads) -> None:
    cache = cache_of(loads)
    await cache.preload(["a", "b"])
    await cache.use("a", name)
    await cache.preload(["c"])
    assert cache.loaded == ("a", "c")
    await asyncio.sleep(0)
    assert [model.closed for model in loads.made] == [False, True, False]
    await cache.use("b", name)
    assert loads.count["b"] == 2


async def test_one_that_is_too_great_stays_while_it_is_the_only_one(loads: Loads) -> None:
    cache = cache_of(loads, limit=5)
    await cache.preload(["a"])
    assert cache.loaded == ("a",)
    await cache.preload(["b"])
    assert cache.loaded == ("b",)


async def test_what_is_in_use_is_not_given_up(loads: Loads) -> None:
    cache, go, inside = cache_of(loads, limit=10), asyncio.Event(), asyncio.Event()

    async def work(model: Loaded) -> bool:
        inside.set()
        await go.wait()
        return model.closed

    working = asyncio.create_task(cache.use("a", work))
    await inside.wait()
    await cache.preload(["b"])
    assert cache.loaded == ("a", "b")
    go.set()
    assert await working is False
    await cache.preload(["b"])
    assert cache.loaded == ("b",)


async def test_what_is_held_is_not_given_up_before_its_first_use(loads: Loads) -> None:
    cache = cache_of(loads, limit=10)
    with cache.holding(["b"]):
        await cache.preload(["b", "a"])
        assert cache.loaded == ("b", "a")
    await cache.preload(["c"])
    assert cache.loaded == ("c",)


async def test_what_is_not_kept_is_closed_when_its_last_user_has_an_answer(loads: Loads) -> None:
    cache, go, inside = cache_of(loads), asyncio.Event(), asyncio.Event()

    async def work(model: Loaded) -> bool:
        inside.set()
        await go.wait()
        return model.closed

    working = asyncio.create_task(cache.use("a", work))
    await inside.wait()
    await cache.preload(["b"])
    keeping = asyncio.create_task(cache.keep(["b"]))
    await asyncio.sleep(0.01)
    assert cache.loaded == ("b",)
    assert not keeping.done()
    go.set()
    assert await working is False
    await keeping
    assert loads.made[0].closed


async def test_whoever_waits_for_a_load_that_is_no_longer_wanted_gets_it_all_the_same(loads: Loads) -> None:
    cache = cache_of(loads)
    loads.free.clear()
    waiting = asyncio.create_task(cache.use("a", name))
    await asyncio.sleep(0)
    keeping = asyncio.create_task(cache.keep([]))
    await asyncio.sleep(0)
    loads.free.set()
    assert await waiting == "a"
    await keeping
    assert loads.made[0].closed


async def test_a_load_that_fails_is_tried_again_by_the_next_one(loads: Loads) -> None:
    cache = cache_of(loads)
    loads.fail = IntegrityError("bad")
    results = await asyncio.gather(*(cache.use("a", name) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [IntegrityError] * 3
    assert loads.count == {"a": 1}
    loads.fail = None
    assert await cache.use("a", name) == "a"


async def test_who_gives_up_waiting_leaves_the_load_to_others(loads: Loads) -> None:
    cache = cache_of(loads)
    loads.free.clear()
    impatient, patient = (asyncio.create_task(cache.use("a", name)) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.sleep(0)
    loads.free.set()
    assert await patient == "a"
    assert loads.count == {"a": 1}


async def test_a_closed_cache_closes_its_models_and_loads_nothing(loads: Loads) -> None:
    cache = cache_of(loads)
    await cache.preload(["a", "b"])
    loads.free.clear()
    waiting = asyncio.create_task(cache.use("c", name))
    await asyncio.sleep(0)
    await cache.close()
    assert all(model.closed for model in loads.made)
    with pytest.raises(NotReady):
        await waiting
    with pytest.raises(NotReady):
        await cache.use("d", name)
    await cache.close()
