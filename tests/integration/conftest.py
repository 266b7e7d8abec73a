"""Connections to the real servers."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

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
