"""The connection to a real server: pipelining, scripts, errors, losses."""

import asyncio

import pytest

from tasks.errors import SettingsError, StoreError, Unreachable
from tasks.settings import Settings
from tasks.stores.connect import Stores
from tasks.stores.link import Link, Script

ECHO = Script("return {KEYS[1], ARGV[1]}")
TWICE = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")


@pytest.fixture
def link(stores: Stores) -> Link:
    """A connection to the emptied server."""
    return stores.link


async def clients(link: Link) -> int:
    return len((await link.call("CLIENT", "LIST")).splitlines())


async def cut(settings: Settings, link: Link) -> None:
    """Have the server drop the connection of ``link``."""
    number = await link.call("CLIENT", "ID")
    other = Link(settings.redis_url)
    assert await other.call("CLIENT", "KILL", "ID", number) == 1
    await other.close()


async def test_answers_come_back_to_who_asked(link: Link) -> None:
    answers = await asyncio.gather(*(link.call("ECHO", str(number)) for number in range(500)))
    assert answers == [str(number).encode() for number in range(500)]


async def test_many_tasks_share_one_connection(link: Link) -> None:
    before = await clients(link)
    await asyncio.gather(*(link.call("SET", f"k{number}", number) for number in range(100)))
    assert await clients(link) == before


async def test_commands_that_are_sent_together_are_answered_in_order(link: Link) -> None:
    assert await link.calls([("SET", "a", 1), ("INCR", "a"), ("GET", "a")]) == [b"OK", 2, b"2"]
    assert await link.calls([]) == []


async def test_one_that_is_cancelled_takes_nobody_elses_answer(link: Link) -> None:
    first = asyncio.create_task(link.call("ECHO", "first"))
    second = asyncio.create_task(link.call("ECHO", "second"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == b"second"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_script_is_sent_once_and_again_when_the_server_forgot_it(link: Link) -> None:
    for _ in range(2):
        assert await link.run(ECHO, ["key"], ["value"]) == [b"key", b"value"]
    await link.call("SCRIPT", "FLUSH")
    assert await link.run_each(TWICE, [(["n"], [1]), (["n"], [2])]) == [1, 3]


async def test_an_error_of_one_command_is_a_store_error_without_its_arguments(link: Link) -> None:
    await link.call("SET", "text", "x")
    with pytest.raises(StoreError, match="WRONGTYPE") as caught:
        await link.calls([("SET", "b", 1), ("LPUSH", "text", "a secret"), ("SET", "c", 2)])
    assert "a secret" not in str(caught.value)
    assert await link.call("ECHO", "still here") == b"still here"


async def test_a_lost_connection_is_made_again(settings: Settings, link: Link) -> None:
    await cut(settings, link)
    assert await link.call("ECHO", "again") == b"again"


async def test_what_was_on_its_way_when_the_connection_was_lost_is_sent_again(settings: Settings, link: Link) -> None:
    blocked = asyncio.create_task(link.call("BLPOP", "nothing", 0))
    await asyncio.sleep(0.05)
    other = Link(settings.redis_url)
    [mine] = [line for line in (await other.call("CLIENT", "LIST")).decode().splitlines() if "cmd=blpop" in line]
    await other.call("CLIENT", "KILL", "ID", mine.split()[0].removeprefix("id="))
    await other.call("LPUSH", "nothing", "something")
    assert await asyncio.wait_for(blocked, 5) == [b"nothing", b"something"]
    await other.close()


async def test_a_listener_hears_also_after_the_connection_was_lost(settings: Settings, link: Link) -> None:
    heard: list[int] = []
    await link.listen("bell", lambda: heard.append(1))
    await link.call("PUBLISH", "bell", "")
    await link.call("PING")
    assert len(heard) == 1
    await cut(settings, link)
    await link.call("PING")
    assert len(heard) == 2, "what may have come while nobody listened is not looked for"
    await link.call("PUBLISH", "bell", "")
    await link.call("PING")
    assert len(heard) == 3


async def test_a_channel_that_may_not_be_listened_to_is_an_error_and_confuses_no_answers(
    settings: Settings, link: Link
) -> None:
    await link.call("ACL", "SETUSER", "deaf", "on", ">secret", "~*", "+@all", "resetchannels")
    _, _, place = settings.redis_url.partition("@")
    deaf = Link(f"redis://deaf:secret@{place}")
    echoes = [asyncio.create_task(deaf.call("ECHO", str(number))) for number in range(3)]
    with pytest.raises(StoreError, match="NOPERM"):
        await deaf.listen("bell", lambda: None)
    echoes += [asyncio.create_task(deaf.call("ECHO", str(number))) for number in range(3, 6)]
    assert await asyncio.gather(*echoes) == [str(number).encode() for number in range(6)]
    await deaf.close()
    await link.call("ACL", "DELUSER", "deaf")


async def test_listening_to_a_server_that_is_away_is_a_store_error(unused_port: int) -> None:
    link = Link(f"redis://127.0.0.1:{unused_port}/0", pauses=(0.01,))
    with pytest.raises(Unreachable):
        await link.listen("bell", lambda: None)
    await link.close()


async def test_who_may_not_ping_may_listen(settings: Settings, link: Link) -> None:
    await link.call("ACL", "SETUSER", "mute", "on", ">secret", "~*", "&*", "+@all", "-ping")
    _, _, place = settings.redis_url.partition("@")
    mute = Link(f"redis://mute:secret@{place}")
    heard: list[int] = []
    await mute.call("ECHO", "connected")
    await mute.listen("bell", lambda: heard.append(1))
    assert await asyncio.gather(*(mute.call("ECHO", str(number)) for number in range(3))) == [b"0", b"1", b"2"]
    await link.call("PUBLISH", "bell", "")
    assert await mute.call("ECHO", "after") == b"after"
    assert len(heard) == 1
    await mute.close()
    await link.call("ACL", "DELUSER", "mute")


async def test_one_that_is_cancelled_while_it_connects_takes_nobodys_connection(settings: Settings) -> None:
    link = Link(settings.redis_url)
    first = asyncio.create_task(link.call("ECHO", "first"))
    second = asyncio.create_task(link.call("ECHO", "second"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    assert await second == b"second"
    await link.close()


async def test_callers_of_a_server_that_swallows_connections_are_not_held_up_by_each_other() -> None:
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    link = Link(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=0.2, pauses=(0.01,))
    begun = asyncio.get_running_loop().time()
    found = await asyncio.gather(*(link.call("PING") for _ in range(20)), return_exceptions=True)
    assert {type(one) for one in found} == {Unreachable}
    assert asyncio.get_running_loop().time() - begun < 2
    await link.close()
    await asyncio.sleep(0.05)  # the server's ends close too
    server.close()
    await server.wait_closed()


async def test_a_server_that_forgot_its_scripts_gets_them_again_in_order(link: Link) -> None:
    append = Script("return redis.call('RPUSH', KEYS[1], ARGV[1])")
    await link.run(append, ["list"], ["0"])
    await link.call("SCRIPT", "FLUSH")
    await link.run_each(append, [(["list"], [str(number)]) for number in range(1, 9)])
    assert await link.call("LRANGE", "list", 0, -1) == [str(number).encode() for number in range(9)]


async def test_a_server_that_does_not_answer_is_given_up(settings: Settings) -> None:
    link = Link(settings.redis_url, timeout=0.2, pauses=(0.01,))
    with pytest.raises(Unreachable, match=r"no answer within 0\.2 s"):
        await link.call("BLPOP", "nothing", 0)
    await link.close()


async def test_after_closing_nothing_is_sent(settings: Settings) -> None:
    link = Link(settings.redis_url)
    waiting = asyncio.create_task(link.call("BLPOP", "nothing", 0))
    await asyncio.sleep(0.05)
    await link.close()
    with pytest.raises(Unreachable, match="closed"):
        await waiting
    with pytest.raises(Unreachable, match="closed"):
        await link.call("PING")


async def test_a_wrong_password_is_said_at_once_and_not_repeated(settings: Settings) -> None:
    url = settings.redis_url
    _, _, place = url.partition("@")
    link = Link(f"redis://:wrong-secret@{place}")
    with pytest.raises(StoreError, match=r"WRONGPASS|invalid") as caught:
        await link.call("PING")
    assert "wrong-secret" not in str(caught.value)
    await link.close()


async def test_a_database_is_selected(settings: Settings) -> None:
    link = Link(settings.redis_url.removesuffix("/0") + "/3")
    assert b"db=3" in await link.call("CLIENT", "INFO")
    await link.close()


@pytest.mark.parametrize(
    "url", ["http://x", "redis://h:port", "redis://h/x", "redis://h?nonsense=1", "", "rediss://h?ssl_cert_reqs=a"]
)
def test_a_url_that_is_none_is_an_error_of_the_settings(url: str) -> None:
    with pytest.raises(SettingsError, match="redis_url"):
        Link(url)
