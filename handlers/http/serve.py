"""The HTTP door over real stores: what a server, or Lambda, runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator

import httpx
from starlette.applications import Starlette

from handlers.desk import make_desk
from handlers.door import Outcome
from handlers.escalations import make_escalations
from handlers.http.app import Api, application
from handlers.http.jwt import Authenticator, Bearer, Local
from handlers.http.limits import RateLimit
from handlers.opening import OpenDoor, open_door
from tasks.access.gate import Caller
from tasks.contracts.request import Request
from tasks.settings import Settings


def make_app(settings: Settings, *, tenant: str = "default") -> Starlette:
    """Return the application. ``tenant`` is the one of all callers where ``http.jwt`` is not set."""

    @contextlib.asynccontextmanager
    async def open_api() -> AsyncIterator[Api]:
        async with open_door(settings, "http") as opened, httpx.AsyncClient() as client:
            yield _api(settings, opened, _authenticator(settings, opened, client, tenant))

    return application(settings.http, open_api)


def _api(settings: Settings, opened: OpenDoor, authenticate: Authenticator) -> Api:
    async def accept(request: Request, caller: Caller) -> Outcome:
        [outcome] = await opened.door.accept([request], caller=caller)
        return outcome

    async def ready() -> None:
        await opened.stores.link.call("PING")
        await opened.stores.data.exists("readyz")

    http = settings.http
    return Api(
        http,
        accept=accept,
        desk=make_desk(settings, opened),
        escalations=lambda caller: make_escalations(opened.acting(caller), settings, opened.stores),
        authenticate=authenticate,
        limit=RateLimit(http.per_second, http.burst, time.monotonic),
        ready=ready,
    )


def _authenticator(settings: Settings, opened: OpenDoor, client: httpx.AsyncClient, tenant: str) -> Authenticator:
    if settings.http.jwt is None:
        return Local(opened.gate.caller(), tenant)
    return Bearer(settings.http.jwt, client, time.monotonic)
