"""The ASGI application: paths, and what is the same for all of them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import msgspec
import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.desk import Desk
from handlers.door import Acceptance, Accepted, Outcome
from handlers.escalations import Escalations
from handlers.events.envelope import read_request
from handlers.http import openapi, problems
from handlers.http.jwt import Authenticator, Principal
from handlers.http.limits import RateLimit
from handlers.progress import Progress, Standing
from tasks.access.gate import Caller
from tasks.contracts.base import ID_CHARACTERS
from tasks.contracts.request import Request
from tasks.contracts.result import Result
from tasks.contracts.strict import parse_strict
from tasks.errors import InvalidInput, NotFound, SluiceError, TooLarge
from tasks.settings import HttpSettings

Accept = Callable[[Request, Caller], Awaitable[Outcome]]
Ready = Callable[[], Awaitable[None]]
"""Raises :class:`NotReady` or :class:`StoreError` while calls cannot be served."""

_JSON: Final = "application/json"
_EVENT_JSON: Final = "application/cloudevents+json"
_ID: Final = re.compile(ID_CHARACTERS)
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_WAIT: Final = re.compile(r"wait=(\d{1,4})")
_HEADERS: Final = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"strict-transport-security", b"max-age=31536000"),
    (b"x-content-type-options", b"nosniff"),
]


class Api:
    """The endpoints. Everything that they need is given."""

    def __init__(
        self,
        settings: HttpSettings,
        *,
        accept: Accept,
        desk: Desk,
        escalations: Callable[[Caller], Escalations],
        authenticate: Authenticator,
        limit: RateLimit,
        ready: Ready,
    ) -> None:
        self._settings = settings
        self._accept = accept
        self._desk = desk
        self._escalations = escalations
        self._authenticate = authenticate
        self._limit = limit
        self._ready = ready

    async def submit(self, call: HttpRequest) -> Response:
        """Accept a request; with ``Prefer: wait=N`` answer with its end where that comes in time."""
        who = await self._who(call)
        body = await self._body(call, _JSON, _EVENT_JSON)
        key = call.headers.get("idempotency-key")
        asked = read_request(body, tenant=who.tenant, fallback_id=key)
        if key is not None and asked.id != key:
            raise InvalidInput("idempotency-key: is not the id of what was sent; leave one of them out")
        outcome = await self._accept(asked, who.caller)
        if not isinstance(outcome, Accepted):
            raise outcome
        seconds = self._waiting(call)
        if seconds:
            standing = await self._desk.wait(who.tenant, outcome.id, seconds, caller=who.caller)
            if standing.result is not None:
                return _json(_told(outcome.id, standing), 200, {"preference-applied": f"wait={seconds:g}"})
        status = 202 if outcome.acceptance is Acceptance.NEW else 200
        return _json(
            {"id": outcome.id, "status": "accepted", "links": _links(outcome.id)},
            status,
            {"location": f"/v1/requests/{outcome.id}"},
        )

    async def standing(self, call: HttpRequest) -> Response:
        """Tell where a request stands."""
        who, request_id = await self._who(call), _id(call)
        standing = await self._desk.wait(who.tenant, request_id, self._waiting(call), caller=who.caller)
        return _json(_told(request_id, standing))

    async def events(self, call: HttpRequest) -> Response:
        """Tell each step as it is taken, as server-sent events, for as long as a caller may wait."""
        who, request_id = await self._who(call), _id(call)
        steps = self._desk.follow(who.tenant, request_id, self._settings.wait_seconds, caller=who.caller)
        first = await anext(steps)  # so that what is wrong is an answer of its own
        return StreamingResponse(_spelt(first, steps), media_type="text/event-stream")

    async def cancel(self, call: HttpRequest) -> Response:
        """Cancel a request that has not ended."""
        who, request_id = await self._who(call), _id(call)
        result = await self._desk.cancel(who.tenant, request_id, caller=who.caller)
        return _json(_told(request_id, Standing(None, result)))

    async def escalations(self, call: HttpRequest) -> Response:
        """List what waits for a person, or was answered by one."""
        who = await self._who(call)
        page = await self._escalations(who.caller).page(
            who.tenant, answered=_answered(call), after=_after(call), most=_limit(call)
        )
        items = [{**msgspec.to_builtins(item), "links": _escalation_links(item.request_id)} for item in page.items]
        return _json({"escalations": items, **({"next": "{}.r{}".format(*page.after)} if page.after else {})})

    async def escalation(self, call: HttpRequest) -> Response:
        """Show what was asked, why it waits, and the answer where there is one."""
        who, request_id = await self._who(call), _id(call)
        shown = await self._escalations(who.caller).show(who.tenant, request_id)
        return _json({**shown.to_dict(), "links": _escalation_links(request_id)})

    async def answer(self, call: HttpRequest) -> Response:
        """Answer for a person: that becomes the result of the request's next revision."""
        who, request_id = await self._who(call), _id(call)
        said = parse_strict(openapi.AnswerBody, await self._body(call, _JSON))
        given = await self._escalations(who.caller).answer(who.tenant, request_id, said.text)
        told = {"id": request_id, "revision": given.revision, "answered_by": given.answer.answered_by}
        return _json({**told, "links": _links(request_id)}, 202 if given.fresh else 200)

    async def health(self, _call: HttpRequest) -> Response:
        """Tell that the process runs."""
        return _json({"status": "ok"})

    async def readiness(self, _call: HttpRequest) -> Response:
        """Tell whether calls can be served."""
        await self._ready()
        return _json({"status": "ready"})

    async def document(self, _call: HttpRequest) -> Response:
        """Return the OpenAPI document."""
        return _json(openapi.document(self._settings))

    async def _who(self, call: HttpRequest) -> Principal:
        who = await self._authenticate(call.headers.get("authorization"))
        self._limit.take(who.tenant)
        return who

    async def _body(self, call: HttpRequest, *kinds: str) -> bytes:
        kind = call.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in kinds:
            raise HTTPException(415, f"content-type: must be {' or '.join(kinds)}")
        held = bytearray()
        async for piece in call.stream():
            held += piece
            if len(held) > self._settings.max_bytes:
                raise TooLarge(f"body: is over {self._settings.max_bytes} bytes (http.max_bytes): use an attachment")
        return bytes(held)

    def _waiting(self, call: HttpRequest) -> float:
        """Return for how long the caller would have an answer waited for, in seconds."""
        for preference in call.headers.get("prefer", "").split(","):
            if found := _WAIT.fullmatch(preference.strip()):
                return min(float(found[1]), self._settings.wait_seconds)
        return 0.0


def application(
    settings: HttpSettings, open_api: Callable[[], contextlib.AbstractAsyncContextManager[Api]]
) -> Starlette:
    """Return the application. ``open_api`` opens what it needs when the server starts, and closes it at its end."""

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Api]]:
        async with open_api() as api:
            yield {"api": api}

    def endpoint(name: str) -> Callable[[HttpRequest], Awaitable[Response]]:
        async def answer(call: HttpRequest) -> Response:
            handler: Callable[[HttpRequest], Awaitable[Response]] = getattr(call.state.api, name)
            return await handler(call)

        return answer

    middleware = [Middleware(_Secured)]
    if settings.cors_origins:
        headers = ["authorization", "content-type", "idempotency-key", "prefer"]
        cors = Middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=headers,
        )
        middleware.append(cors)
    return Starlette(
        routes=[Route(path, endpoint(name), methods=[method]) for path, method, name in openapi.ROUTES],
        middleware=middleware,
        exception_handlers={
            SluiceError: problems.of_sluice,
            HTTPException: problems.of_http,
            Exception: problems.unforeseen,
        },
        lifespan=lifespan,
    )


class _Secured:
    """Adds the security headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        await self._app(scope, receive, sending if scope["type"] == "http" else send)


def _id(call: HttpRequest) -> str:
    request_id: str = call.path_params["id"]
    if not _ID.fullmatch(request_id):
        raise NotFound("no request has such an id")
    return request_id


def _answered(call: HttpRequest) -> bool | None:
    """Return whether those are wanted that were answered; None: either."""
    chosen = call.query_params.get("open")
    if chosen not in {None, "true", "false"}:
        raise InvalidInput("open: must be true or false; leave it out for both")
    return None if chosen is None else chosen == "false"


def _limit(call: HttpRequest) -> int:
    chosen = call.query_params.get("limit", str(openapi.PAGE))
    if not (_NUMBER.fullmatch(chosen) and 1 <= int(chosen) <= openapi.MAX_PAGE):
        raise InvalidInput(f"limit: must be a number from 1 to {openapi.MAX_PAGE}")
    return int(chosen)


def _after(call: HttpRequest) -> tuple[str, int] | None:
    chosen = call.query_params.get("after")
    if chosen is None:
        return None
    request_id, _, revision = chosen.rpartition(".r")
    if not (_ID.fullmatch(request_id) and _NUMBER.fullmatch(revision)):
        raise InvalidInput("after: must be what the page before calls next")
    return request_id, int(revision)


def _told(request_id: str, standing: Standing) -> dict[str, Any]:
    told: dict[str, Any] = {"id": request_id, "status": standing.status, "links": _links(request_id)}
    if standing.result is not None:
        told["result"] = _result(standing.result)
    return told


def _result(result: Result) -> dict[str, Any]:
    return result.to_dict()


def _links(request_id: str) -> dict[str, str]:
    here = f"/v1/requests/{request_id}"
    return {"self": here, "events": f"{here}/events"}


def _escalation_links(request_id: str) -> dict[str, str]:
    here = f"/v1/escalations/{request_id}"
    return {"self": here, "answer": f"{here}/answer", "request": f"/v1/requests/{request_id}"}


def _json(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, media_type=_JSON)


async def _spelt(first: Progress, rest: AsyncIterator[Progress]) -> AsyncIterator[bytes]:
    yield _event(first)
    async for progress in rest:
        yield _event(progress)


def _event(progress: Progress) -> bytes:
    data: dict[str, Any] = {"time": progress.time}
    if progress.step is not None:
        data["step"] = progress.step._asdict()
    if progress.result is not None:
        data["result"] = _result(progress.result)
    return b"event: " + progress.name.encode() + b"\ndata: " + orjson.dumps(data, option=orjson.OPT_UTC_Z) + b"\n\n"
