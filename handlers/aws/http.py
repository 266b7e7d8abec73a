"""The HTTP door behind API Gateway: REST APIs (v1), HTTP APIs (v2) and function URLs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from handlers.aws.container import container
from tasks.errors import InvalidInput, SettingsError
from tasks.log import get_logger

if TYPE_CHECKING:
    from mangum import Mangum
    from starlette.applications import Starlette
    from starlette.types import Receive, Scope, Send

log = get_logger()

_MOST_SECONDS: Final = 25.0
"""What may be waited for: API Gateway gives a call 29 seconds, and an answer goes out as a whole."""
_TEXT: Final = ["text/", "application/json", "application/problem+json"]


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer one call."""
    asyncio.set_event_loop(container().loop)  # where the adapter looks for it
    adapter = _adapter()
    if not _is_call(adapter, event, context):
        return _refusal()
    answer: dict[str, Any] = adapter(event, context)
    return answer


def _is_call(adapter: Mangum, event: Any, context: Any) -> bool:
    """Tell whether the adapter can read ``event``. A caller's own header is enough that it cannot: ``Host: a:b:c``."""
    try:
        call = adapter.infer(event, context)
        scope, body = call.scope, call.body
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        log.warning("refused", reason=f"no call of a gateway: {type(error).__name__}: {error}")
        return False
    return all(isinstance(scope[name], str) for name in ("method", "path", "scheme")) and isinstance(body, bytes)


def _refusal() -> dict[str, Any]:
    from handlers.http.problems import MEDIA_TYPE, problem

    refused = problem(400, InvalidInput.code, "event: is no call that API Gateway passes on: look at its headers")
    return {
        "statusCode": refused.status_code,
        "headers": {"content-type": MEDIA_TYPE},
        "body": bytes(refused.body).decode(),
        "isBase64Encoded": False,
    }


@cache
def _adapter() -> Mangum:
    from mangum import Mangum

    from handlers.http.serve import make_app

    here = container()
    if here.settings.http.jwt is None:
        raise SettingsError("http.jwt: is not set, and the gateway lets anybody in: name the issuer of the tokens")
    http = here.settings.http
    app = make_app(here.settings.changed(http=http.changed(wait_seconds=min(http.wait_seconds, _MOST_SECONDS))))
    state: dict[str, Any] = {}

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if not state:  # once for the container, not for each call
            state.update(await here.keep(_started(app)))
        await app({**scope, "state": dict(state)}, receive, send)

    return Mangum(answer, lifespan="off", text_mime_types=_TEXT)


@asynccontextmanager
async def _started(app: Starlette) -> AsyncIterator[Mapping[str, Any]]:
    """Yield what the application keeps while it runs."""
    async with app.router.lifespan_context(app) as state:
        yield state or {}
