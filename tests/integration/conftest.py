"""Connections to the real servers."""

import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from scaling import keyfiles
from tasks.settings import Settings
from tasks.stores.connect import Stores, connect


@pytest.fixture
def environment(servers: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """This process's environment points at the servers."""
    variables = {**servers, "SLUICE_HOME": str(tmp_path / "home")}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    return Settings(
        redis_url=environment["SLUICE_REDIS_URL"],
        s3_endpoint=environment["SLUICE_S3_ENDPOINT"],
        signing=keyfiles.read(environment),
    )


@pytest.fixture
async def stores(settings: Settings) -> AsyncIterator[Stores]:
    """Connections to the servers; Redis is empty."""
    async with connect(settings) as stores:
        await stores.link.call("FLUSHALL")
        yield stores


@pytest.fixture
def tenant() -> str:
    """A tenant of this test's own, because buckets are not emptied."""
    return f"t-{uuid4().hex[:12]}"


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port of this machine on which nothing listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])
