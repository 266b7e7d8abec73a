"""The HTTP door over a world in memory."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx

from handlers.acting import Acting
from handlers.door import Outcome
from handlers.escalations import Escalations
from handlers.http.app import Api
from handlers.http.jwt import Local, Principal
from handlers.http.limits import RateLimit
from handlers.reopen import Reopener
from tasks.access.gate import Caller
from tasks.contracts.request import Request
from tasks.settings import HttpSettings
from tests.support.world import HUMAN, RESPONDER, World

SETTINGS = HttpSettings(max_bytes=2000, wait_seconds=2)


class Server(World):
    """The HTTP door over a world in memory. ``fault`` is raised at each submission."""

    def __init__(self) -> None:
        super().__init__()
        self.fault: Exception | None = None
        self.ready: Exception | None = None
        self.who: Principal | Exception = Principal(Caller("alice", ("user",)), "acme")
        self.limit = RateLimit(1000, 1000, lambda: self.clock.seconds)
        self.audit = self.stream("door")

    def escalations_of(self, caller: Caller) -> Escalations:
        acting = Acting(caller, self.gate, self.audit, self.clock)
        stores = {"register": self.register, "relay": self.relay, "results": self.results}
        reopener = Reopener(acting, unpublished_seconds=10, **stores)  # type: ignore[arg-type]
        bodies = self.deps(HUMAN).bodies
        return Escalations(acting, escalations=self.escalations, results=self.results, bodies=bodies, reopener=reopener)

    def api(self) -> Api:
        door = self.door()

        async def accept(request: Request, caller: Caller) -> Outcome:
            if self.fault:
                raise self.fault
            [outcome] = await door.accept([request], caller=caller)
            return outcome

        async def authenticate(authorization: str | None) -> Principal:
            if isinstance(self.who, Exception):
                raise self.who
            return await Local(*self.who)(authorization)

        async def ready() -> None:
            if self.ready:
                raise self.ready

        return Api(
            SETTINGS,
            accept=accept,
            desk=self.desk(),
            escalations=self.escalations_of,
            authenticate=authenticate,
            limit=self.limit,
            ready=ready,
        )

    @contextlib.asynccontextmanager
    async def open_api(self) -> AsyncIterator[Api]:
        yield self.api()

    async def answer(self) -> None:
        """Have both hops do what waits."""
        await self.deliver(self.route(), "requests")
        await self.deliver(self.work(), RESPONDER)


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["status"] == status
    return found
