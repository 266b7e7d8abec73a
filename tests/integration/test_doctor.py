"""What `sluice doctor` says of a Redis-protocol server that keeps what it acknowledged, does not, or does not tell."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from handlers.cli import doctor
from tasks.settings import Settings
from tasks.stores.connect import Stores
from tasks.stores.link import Link


@pytest.fixture
async def managed(settings: Settings, stores: Stores) -> AsyncIterator[Settings]:
    """Settings for a user who may do everything but CONFIG, as managed stores have it."""
    await stores.link.call("ACL", "SETUSER", "managed", "on", ">secret", "~*", "&*", "+@all", "-config")
    _, _, place = settings.redis_url.partition("@")
    yield settings.changed(redis_url=f"redis://managed:secret@{place}")
    await stores.link.call("ACL", "DELUSER", "managed")


async def test_a_server_that_keeps_what_it_acknowledged(settings: Settings) -> None:
    found = await doctor._redis(settings)
    assert (found.level, found.mend) == ("ok", "")
    assert found.detail == "appendonly yes, appendfsync always, maxmemory-policy noeviction"


async def test_a_server_that_may_lose_it(settings: Settings, stores: Stores) -> None:
    await stores.link.call("CONFIG", "SET", "appendfsync", "everysec")
    try:
        for vouched in (False, True):  # an assertion does not outweigh what the server says
            found = await doctor._redis(settings.changed(redis_durable=vouched))
            assert (found.level, found.detail) == (
                "error",
                "appendonly yes, appendfsync everysec, maxmemory-policy noeviction",
            )
            assert "set appendonly yes, appendfsync always" in found.mend
    finally:
        await stores.link.call("CONFIG", "SET", "appendfsync", "always")


async def test_a_server_that_refuses_to_say(managed: Settings) -> None:
    found = await doctor._redis(managed)
    assert found.level == "warning"
    assert found.detail.startswith("it answers; not checked, as it refuses CONFIG (redis: NOPERM")
    assert found.detail.endswith(": appendonly, appendfsync, maxmemory-policy")
    assert "redis_durable: true (SLUICE_REDIS_DURABLE)" in found.mend


async def test_a_server_that_is_vouched_for(managed: Settings) -> None:
    found = await doctor._redis(managed.changed(redis_durable=True))
    assert (found.level, found.mend) == ("ok", "")
    assert "not checked, as it refuses CONFIG" in found.detail
    assert found.detail.endswith("taken for durable because redis_durable says so")


async def test_a_server_that_answers_with_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(_link: Link, commands: list[object]) -> list[dict[bytes, bytes]]:
        return [{b"maxmemory-policy": b"noeviction"}, *({} for _ in commands[1:])]

    monkeypatch.setattr(Link, "calls", nothing)
    monkeypatch.setattr(Link, "call", nothing)
    found = await doctor._redis(settings)
    assert found.level == "warning"
    assert "as it does not tell appendonly, appendfsync: " in found.detail


async def test_a_wrong_password_is_an_error_and_no_matter_of_persistence(settings: Settings) -> None:
    _, _, place = settings.redis_url.partition("@")
    found = await doctor._safely("redis", doctor._redis, settings.changed(redis_url=f"redis://:wrong@{place}"))
    assert (found.level, "WRONGPASS" in found.detail) == ("error", True)
