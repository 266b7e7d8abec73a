"""The cache of models: bounded, made once, closed when nobody uses them; and what a reload replaces."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
import pytest
from autogen_core.models import UserMessage

from tasks.agents.models.backend import Backend
from tasks.agents.models.base import ModelClient
from tasks.agents.models.cache import ModelCache
from tasks.agents.models.canned import CannedClient
from tasks.agents.models.endpoint import Endpoint
from tasks.agents.models.registry import ModelRegistry
from tasks.errors import ModelError, NotReady
from tasks.settings import ModelCacheSettings, ModelSettings, Settings


class Factory:
    """Makes backends slowly, and counts them."""

    def __init__(self) -> None:
        self.made: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.broken = False

    async def __call__(self, key: str) -> Backend:
        await asyncio.sleep(0)
        self.made[key] += 1
        if self.broken:
            raise NotReady("not installed")

        async def close() -> None:
            self.closed[key] += 1

        return Backend(lambda *_: CannedClient(0), close=close)


async def use(cache: ModelCache[str], *keys: str) -> None:
    for key in keys:
        async with cache.using(key):
            pass


async def test_what_was_used_last_stays() -> None:
    factory = Factory()
    cache = ModelCache(factory, size=2)

    await use(cache, "a", "b", "a", "c")

    assert cache.keys == ("a", "c")
    assert factory.closed == {"b": 1}
    await use(cache, "a")
    assert factory.made["a"] == 1
    await cache.close()
    assert factory.closed == {"a": 1, "b": 1, "c": 1}


async def test_many_at_once_make_it_once() -> None:
    factory = Factory()
    cache = ModelCache(factory, size=2)
    await asyncio.gather(*(use(cache, "a") for _ in range(20)))
    assert factory.made == {"a": 1}


async def test_what_is_in_use_is_closed_at_the_end() -> None:
    factory = Factory()
    cache = ModelCache(factory, size=1)
    async with cache.using("a"), cache.using("a"):
        await use(cache, "b")
        await cache.retire(("b",))
        async with cache.using("a"):
            assert factory.made["a"] == 2  # it had to make room
        assert factory.closed == {"b": 1}
    await cache.close()
    assert factory.closed == {"a": 2, "b": 1}


async def test_what_cannot_be_made_is_tried_again() -> None:
    factory = Factory()
    cache = ModelCache(factory, size=2)
    factory.broken = True
    with pytest.raises(NotReady):
        await use(cache, "a")
    assert cache.keys == ()
    factory.broken = False
    await use(cache, "a")
    await cache.close()
    assert factory.closed == {"a": 1}


async def test_one_who_is_cancelled_does_not_take_it_from_the_others() -> None:
    factory = Factory()
    cache = ModelCache(factory, size=2)
    first = asyncio.ensure_future(use(cache, "a"))
    second = asyncio.ensure_future(use(cache, "a"))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert factory.made == {"a": 1}
    await cache.close()
    assert factory.closed == {"a": 1}


# The registry ---------------------------------------------------------------------------------


def named(url: str, **others: ModelSettings) -> Settings:
    models = {"house": ModelSettings(base_url=url), "other": ModelSettings(base_url="http://127.0.0.1:9/o"), **others}
    return Settings(default_model="house", models=models)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses of the endpoints that were closed."""
    found: list[str] = []

    async def close(self: Endpoint) -> None:
        found.append(self._settings.base_url)

    monkeypatch.setattr(Endpoint, "close", close)
    return found


def registry(settings: Settings, seen: list[str]) -> ModelRegistry:
    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(f"{request.method} {request.url}")
        return httpx.Response(200, json={"data": []})

    return ModelRegistry(settings, environ={}, transport=httpx.MockTransport(answer))


async def test_a_reload_leads_a_name_elsewhere_and_leaves_what_runs_alone(closed: list[str]) -> None:
    seen: list[str] = []
    models = registry(named("http://127.0.0.1:9/a"), seen)

    async def said(client: ModelClient) -> str:
        with pytest.raises(ModelError, match="no choices"):
            await client.create([UserMessage(content="x", source="user")])
        return seen[-1].partition(":9")[2]

    async with models.using("house", temperature=0) as (old, _), models.using("other", temperature=0) as (other, _):
        await models.configure(named("http://127.0.0.1:9/b"))
        async with models.using("house", temperature=0) as (new, _), models.using("other", temperature=0) as (same, _):
            assert (await said(old), await said(new)) == ("/a/chat/completions", "/b/chat/completions")
            assert same._endpoint is other._endpoint  # type: ignore[attr-defined]
            assert closed == []
    assert closed == ["http://127.0.0.1:9/a"]
    await models.close()
    assert len(closed) == 3


async def test_a_smaller_cache_drops_what_was_used_first() -> None:
    models = registry(named("http://127.0.0.1:9/a"), [])
    await models.preload(["house", "other"])
    await models.configure(named("http://127.0.0.1:9/a").changed(model_cache=ModelCacheSettings(size=1)))
    assert [key.model for key in models._cache.keys] == ["other"]
    await models.close()


async def test_preloading_opens_a_connection_and_a_failure_is_for_later() -> None:
    seen: list[str] = []
    azure = ModelSettings(provider="azure", base_url="https://azure.example.com")
    models = registry(named("http://127.0.0.1:9/a", azure=azure), seen)

    await models.preload(["azure", "gpt-5", "house", "extractive"])

    assert seen == ["GET http://127.0.0.1:9/a/models"]  # the others have no key, or no connection
    await models.close()
