"""Unit tests see no configuration of this machine, and work in a world in memory."""

import os
from collections.abc import AsyncIterator

import pytest

from tests.support.world import World


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("SLUICE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.close()
