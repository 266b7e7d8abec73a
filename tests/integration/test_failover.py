"""Two servers that change places: the connection follows, and what was sent is done by whoever has the keys."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from scaling.stack import free_ports, redis_server
from tasks.errors import Unreachable
from tasks.stores.address import Address
from tasks.stores.link import Link, Script

COUNT = Script("return redis.call('INCR', KEYS[1])")
KEY = "{sluice}:n"
PASSWORD = "a-password-for-this-test"
PAUSES = (0.1, 0.3, 1.0, 3.0)


@dataclass
class Pair:
    """Two servers, and their own ``links``, for what an operator does."""

    ports: list[int]
    links: list[Link] = field(default_factory=list)

    async def until(self, place: int, said: bytes, *command: str) -> None:
        end = time.monotonic() + 60
        while said not in (found := await self.links[place].call(*command)):
            assert time.monotonic() < end, found
            await asyncio.sleep(0.05)


def serving(folder: Path, ports: list[int], *options: str) -> Iterator[None]:
    """Run a server on each of ``ports``."""
    with contextlib.ExitStack() as stack:
        for port in ports:
            data = folder / str(port)
            data.mkdir()
            own = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(data), "--save", "", "--logfile", "log"]
            secret = ["--requirepass", PASSWORD, "--primaryauth", PASSWORD]
            server = subprocess.Popen([str(redis_server()), *own, *secret, *options])
            stack.callback(server.wait, 20)
            stack.callback(server.terminate)
        yield


@pytest.fixture
def ports() -> list[int]:
    return free_ports(2)


@pytest.fixture
def two(tmp_path: Path, ports: list[int]) -> Iterator[None]:
    yield from serving(tmp_path, ports)


@pytest.fixture
def two_of_a_cluster(tmp_path: Path, ports: list[int]) -> Iterator[None]:
    yield from serving(tmp_path, ports, "--cluster-enabled", "yes", "--cluster-node-timeout", "60000")


@contextlib.asynccontextmanager
async def linked(ports: list[int]) -> AsyncIterator[Pair]:
    pair = Pair(ports, [Link(url(port)) for port in ports])
    try:
        for link in pair.links:
            await link.call("PING")
        yield pair
    finally:
        for link in pair.links:
            await link.close()


@pytest.fixture
async def pair(two: None, ports: list[int]) -> AsyncIterator[Pair]:
    """The second server is the replica of the first one."""
    async with linked(ports) as found:
        await found.links[1].call("REPLICAOF", "127.0.0.1", ports[0])
        await found.until(1, b"master_link_status:up", "INFO", "replication")
        yield found


@pytest.fixture
async def cluster(two_of_a_cluster: None, ports: list[int]) -> AsyncIterator[Pair]:
    """A cluster of one shard, whose replica is the second server."""
    async with linked(ports) as found:
        first, second = found.links
        await first.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        await second.call("CLUSTER", "MEET", "127.0.0.1", ports[0])
        name = (await first.call("CLUSTER", "MYID")).decode()
        await found.until(1, name.encode(), "CLUSTER", "NODES")
        await second.call("CLUSTER", "REPLICATE", name)
        await found.until(1, b"master_link_status:up", "INFO", "replication")
        for place in (0, 1):
            await found.until(place, b"cluster_state:ok", "CLUSTER", "INFO")
        yield found


def url(port: int) -> str:
    return f"redis://:{PASSWORD}@127.0.0.1:{port}"


class Endpoint:
    """A name that leads to one server, then to the other, as that of a managed store."""

    def __init__(self, leads_to: int) -> None:
        self.leads_to = leads_to
        self.callers = 0

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[int]:
        """Yield the port to connect to."""
        pumps = set[asyncio.Task[None]]()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.callers += 1
            there, back = await asyncio.open_connection("127.0.0.1", self.leads_to)
            pumps.update((asyncio.create_task(pump(reader, back)), asyncio.create_task(pump(there, writer))))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()
            for task in pumps:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def test_a_primary_that_becomes_a_replica_is_left_for_its_successor(pair: Pair) -> None:
    endpoint = Endpoint(pair.ports[0])
    async with endpoint.open() as port:
        link = Link(url(port), pauses=PAUSES)
        assert await link.run(COUNT, [KEY], []) == 1
        heard: list[int] = []
        await link.listen("bell", lambda: heard.append(1))
        await pair.links[0].call("WAIT", 1, 5000)

        await pair.links[1].call("REPLICAOF", "NO", "ONE")
        await pair.links[0].call("REPLICAOF", "127.0.0.1", pair.ports[1])
        counts = [asyncio.create_task(link.run(COUNT, [KEY], [])) for _ in range(20)]
        await asyncio.sleep(0.3)  # the name still leads to the old one
        endpoint.leads_to = pair.ports[1]

        # Each was refused before anything was done, and so is done once.
        assert sorted(await asyncio.gather(*counts)) == list(range(2, 22))
        heard.clear()
        await pair.links[1].call("PUBLISH", "bell", "")
        await link.call("PING")
        assert heard == [1], "it listens where it is now"
        await link.close()


async def test_a_store_that_stays_read_only_is_an_error_that_says_so(pair: Pair) -> None:
    link = Link(url(pair.ports[1]), pauses=(0.01, 0.01))
    with pytest.raises(Unreachable, match="no server takes its keys: READONLY"):
        await link.run(COUNT, [KEY], [])
    assert await link.call("GET", KEY) is None, "what may be asked of it still is"
    await link.close()


async def test_a_clusters_replica_says_where_the_keys_are(cluster: Pair) -> None:
    link = Link(url(cluster.ports[1]), pauses=())
    answers = await link.calls([("PING",), ("SET", KEY, 5), ("GET", KEY)])
    assert answers == [b"PONG", b"OK", b"5"]
    assert await link.run(COUNT, [KEY], []) == 6
    assert await cluster.links[0].call("GET", KEY) == b"6"
    await link.close()


async def test_a_failover_in_a_cluster_is_followed_by_all_that_share_the_connection(cluster: Pair) -> None:
    link = Link(url(cluster.ports[0]), pauses=PAUSES)
    assert await link.run(COUNT, [KEY], []) == 1
    await cluster.links[0].call("WAIT", 1, 5000)
    await cluster.links[1].call("CLUSTER", "FAILOVER")
    found = []
    for _ in range(20):
        found += await asyncio.gather(*(link.run(COUNT, [KEY], []) for _ in range(5)))
        await asyncio.sleep(0.05)
    await cluster.until(1, b"role:master", "INFO", "replication")
    assert sorted(found) == list(range(2, 102))
    assert await link.run(COUNT, [KEY], []) == 102
    await link.close()


async def test_when_the_server_that_was_moved_to_is_away_the_url_is_asked_again(
    cluster: Pair, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: Callable[[Address, str], Address] = Address.elsewhere
    tried: list[int] = []

    def first_to_nobody(address: Address, said: str) -> Address:
        tried.append(unused_port)
        return moved(address, said if len(tried) > 1 else f"MOVED 1 127.0.0.1:{unused_port}")

    monkeypatch.setattr(Address, "elsewhere", first_to_nobody)
    link = Link(url(cluster.ports[1]), pauses=PAUSES)
    assert await link.run(COUNT, [KEY], []) == 1
    assert len(tried) == 2
    await link.close()


async def test_keys_that_lie_apart_are_an_error_that_names_what_was_said(cluster: Pair) -> None:
    await cluster.links[0].call("CLUSTER", "DELSLOTSRANGE", 0, 16383)
    link = Link(url(cluster.ports[0]), pauses=(0.01, 0.01))
    with pytest.raises(Unreachable, match=r"no server takes its keys: CLUSTERDOWN"):
        await link.call("GET", KEY)
    await link.close()


@pytest.mark.parametrize(
    ("said", "host", "port", "certified"),
    [
        ("MOVED 5 10.0.0.7:6380", "10.0.0.7", 6380, "cfg.example.org"),
        ("MOVED 5 n1.example.org:6380", "n1.example.org", 6380, "n1.example.org"),
        ("MOVED 5 :6380", "cfg.example.org", 6380, "cfg.example.org"),
        ("MOVED 5 fd00::7:6380", "fd00::7", 6380, "cfg.example.org"),
    ],
)
def test_where_a_redirection_leads(said: str, host: str, port: int, certified: str) -> None:
    first = Address.of("rediss://user:secret@cfg.example.org:6379")
    moved = first.elsewhere(said)
    assert (moved.host, moved.port, moved.certified) == (host, port, certified)
    assert (moved.username, moved.password, moved.secure) == ("user", "secret", True)
    again = moved.elsewhere("MOVED 5 10.0.0.8:6381")
    assert again.certified in {"cfg.example.org", "n1.example.org"}
