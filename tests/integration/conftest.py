"""Real servers on free ports: a Redis-protocol server and an S3 server, for all tests of a run."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from scaling.stack import Stack
from tasks.settings import Settings
from tasks.stores.connect import Stores, connect


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment that points at the servers."""
    folder = tmp_path_factory.mktemp("stack")
    with pytest.MonkeyPatch.context() as patch:
        # Whoever looks for the embedded stack must not find, or delete, that of this checkout.
        patch.setenv("SLUICE_HOME", str(folder))
        stack = Stack(folder, Settings())
        try:
            yield stack.start_servers(lambda line: None, model=False)
        finally:
            stack.down(purge=True, tell=lambda line: None)
            # A process of many threads is a zombie a moment before it can be waited for.
            for child in stack.processes._children.values():
                child.wait(20)


@pytest.fixture
def environment(servers: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """This process's environment points at the servers."""
    variables = {**servers, "SLUICE_HOME": str(tmp_path / "home")}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    return Settings()


@pytest.fixture
async def stores(settings: Settings) -> AsyncIterator[Stores]:
    """Connections to the servers; Redis is empty."""
    async with connect(settings) as stores:
        await stores.redis.flushall()
        yield stores


@pytest.fixture
def tenant() -> str:
    """A tenant of this test's own, because buckets are not emptied."""
    return f"t-{uuid4().hex[:12]}"
