"""Errors as ``application/problem+json`` (RFC 9457). What was not foreseen says nothing of the inside."""

from __future__ import annotations

from typing import Any, Final

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from tasks.errors import (
    Conflict,
    Denied,
    InvalidInput,
    NotFound,
    NotReady,
    Overloaded,
    QuotaExceeded,
    ResultTimeout,
    SluiceError,
    StoreError,
    TooLarge,
    Unauthenticated,
)
from tasks.log import get_logger

log = get_logger()

MEDIA_TYPE: Final = "application/problem+json"
_STATUS: Final[tuple[tuple[type[SluiceError], int], ...]] = (
    (Unauthenticated, 401),
    (Denied, 403),
    (NotFound, 404),
    (Conflict, 409),
    (InvalidInput, 400),
    (QuotaExceeded, 429),
    (ResultTimeout, 504),
    (NotReady, 503),
    (Overloaded, 503),
    (StoreError, 503),
)
_RETRY_SECONDS: Final = 5


def problem(status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Return a problem document. ``code`` is the stable name of the error."""
    body = {"type": f"urn:sluice:error:{code}", "title": code, "status": status, "detail": detail}
    return Response(orjson.dumps(body), status, headers, media_type=MEDIA_TYPE)


def of_sluice(_request: HttpRequest, error: Exception) -> Response:
    """Return the problem that one of our errors is."""
    if not isinstance(error, SluiceError):
        raise TypeError(f"{type(error).__name__} is none of ours") from error
    status = 413 if isinstance(error, TooLarge) else next((n for kind, n in _STATUS if isinstance(error, kind)), 500)
    headers: dict[str, str] = {}
    if isinstance(error, QuotaExceeded):
        headers["retry-after"] = str(error.retry_seconds)
    elif status == 503:
        log.error("not ready", error=str(error))
        headers["retry-after"] = str(_RETRY_SECONDS)
    elif status == 401:
        headers["www-authenticate"] = "Bearer"
    elif status == 500:
        return unforeseen(_request, error)
    return problem(status, error.code, _told(status, error), headers)


def of_http(_request: HttpRequest, error: Exception) -> Response:
    """Return the problem of a path or a method that there is not."""
    if not isinstance(error, HTTPException):
        raise TypeError(f"{type(error).__name__} is no HTTP error") from error
    codes = {404: "not_found", 405: "method_not_allowed"}
    headers: dict[str, Any] = dict(error.headers or {})
    return problem(error.status_code, codes.get(error.status_code, "error"), error.detail, headers)


def unforeseen(_request: HttpRequest, error: Exception) -> Response:
    """Return what a caller may know of a fault of ours."""
    log.error("fault", error=type(error).__name__, exc_info=error)
    return problem(500, "internal", "something went wrong here; the log knows more")


def _told(status: int, error: SluiceError) -> str:
    """Return the detail; where a store failed its message names addresses of the inside."""
    return "a store does not answer; try again" if status == 503 and isinstance(error, StoreError) else str(error)
