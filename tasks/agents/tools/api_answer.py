"""What ``api_caller`` makes of an answer: bounded, typed, without the secrets that were sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import Field, JsonValue

from tasks.agents.tools.base import ToolResult

if TYPE_CHECKING:
    import httpx


class ApiResult(ToolResult):
    """The response: ``json_body`` where it is JSON and whole, else ``text``; ``truncated``: it was longer.

    ``location`` is where a redirect points that was not followed. ``retry_after`` is seconds.
    """

    status: int
    content_type: str = ""
    location: str = ""
    json_body: JsonValue = None
    text: str = ""
    truncated: bool = False
    retry_after: float = Field(default=0.0, exclude=True)


async def read_body(response: httpx.Response, limit: int) -> tuple[bytes, bool]:
    """Return at most ``limit`` bytes of the answer, and whether there were more."""
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > limit:
            break
    return bytes(data[:limit]), len(data) > limit


def answered(response: httpx.Response, data: bytes, *, truncated: bool, strike: Callable[[str], str]) -> ApiResult:
    """Return the typed result; ``strike`` takes out of texts what no model may see."""
    content_type = response.headers.get("Content-Type", "")
    parsed: Any = None
    text = ""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        # A small compressed answer can be a large one. What the status says stands all the same.
        text = f"<the answer is encoded as {encoding[:40]}, which was not asked for>"
    elif "json" in content_type and not truncated:
        body = strike(data.decode("utf-8", "replace"))
        try:
            parsed = json.loads(body)
        except (ValueError, RecursionError):
            text = body
    elif _is_text(content_type):
        text = strike(data.decode(response.encoding or "utf-8", "replace"))
    elif data:
        text = f"<{len(data)} bytes of {content_type or 'unknown type'}>"
    return ApiResult(
        status=response.status_code,
        content_type=strike(content_type)[:200],
        location=strike(response.headers.get("Location", ""))[:2048] if response.is_redirect else "",
        json_body=parsed,
        text=text,
        truncated=truncated,
        retry_after=_seconds(response.headers.get("Retry-After", "")),
    )


def _seconds(text: str) -> float:
    return float(text) if text.isdecimal() and len(text) < 6 else 0.0


def _is_text(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind.startswith("text/") or kind.endswith(("json", "xml", "yaml", "csv", "javascript"))
