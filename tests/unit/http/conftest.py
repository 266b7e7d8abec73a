"""A door and a client of it."""

from collections.abc import AsyncIterator

import httpx
import pytest

from handlers.http.app import application
from tests.support.asgi import client_of
from tests.support.http_door import SETTINGS, Server


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    yield made
    await made.close()


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(application(SETTINGS, server.open_api)) as client:
        yield client
