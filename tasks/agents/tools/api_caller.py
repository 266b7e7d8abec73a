"""``api_caller``: calls an HTTP API on an allowed host."""

from __future__ import annotations

import asyncio
import json
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

from pydantic import Field, JsonValue

from tasks.agents.tools.api_guard import Allowlist, Resolver, Target
from tasks.agents.tools.base import Tool, ToolArguments, ToolResult
from tasks.errors import ToolError
from tasks.settings import ApiToolSettings

if TYPE_CHECKING:
    import ssl

    import httpx

_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_USER_AGENT: Final = "sluice-api-caller"


class ApiArguments(ToolArguments):
    """``body`` is sent as JSON. An agent sets no headers: they are where credentials would go."""

    url: Annotated[str, Field(min_length=1, max_length=2048, description="http or https URL")]
    method: Annotated[str, Field(pattern=r"^[A-Za-z]{3,7}$", description="HTTP method")] = "GET"
    body: Annotated[JsonValue, Field(description="JSON to send")] = None


class ApiResult(ToolResult):
    """The response: ``json_body`` where it is JSON and whole, else ``text``; ``truncated``: it was longer.

    ``location`` is where a redirect points; it is not followed.
    """

    status: int
    content_type: str = ""
    location: str = ""
    json_body: JsonValue = None
    text: str = ""
    truncated: bool = False


class ApiCaller(Tool[ApiArguments]):
    """The tool. ``resolve`` and ``transport`` are for tests; the default is the system's own."""

    name: ClassVar[str] = "api_caller"
    arguments = ApiArguments

    def __init__(
        self,
        settings: ApiToolSettings,
        *,
        resolve: Resolver | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = settings
        self._methods = frozenset(method.upper() for method in settings.allowed_methods)
        self._allowed = Allowlist(settings.allowed_hosts, resolve)
        self._transport = transport

    @cached_property
    def description(self) -> str:
        """What it does, with what is allowed."""
        hosts = ", ".join(self._settings.allowed_hosts) or "none"
        return f"Call an HTTP API with {', '.join(sorted(self._methods))}. Allowed hosts: {hosts}."

    async def call(self, arguments: ApiArguments) -> ApiResult:
        """Send one request and read at most ``max_bytes`` of the answer. Status 400 is a result too.

        Raises:
            ToolError: the method, host or address is not allowed, or there was no answer in time.
        """
        method = arguments.method.upper()
        if method not in self._methods:
            raise ToolError(f"method {method} is not allowed; allowed: {', '.join(sorted(self._methods))}")
        if arguments.body is not None and method not in _WITH_BODY:
            raise ToolError(f"a {method} request has no body")
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                target = await self._allowed.check(arguments.url)
                return await self._send(target, method, arguments.body)
        except TimeoutError as error:
            raise ToolError(f"no answer within {self._settings.timeout_seconds:g} s") from error

    async def _send(self, target: Target, method: str, body: JsonValue) -> ApiResult:
        import httpx

        # A client for each call: no cookies, no connection of another host at the same address, no other
        # loop's. Environment proxies would resolve the name themselves, so they are left out.
        client = httpx.AsyncClient(
            transport=self._transport,
            verify=self._tls if target.scheme == "https" else False,
            trust_env=False,
            follow_redirects=False,
            timeout=self._settings.timeout_seconds,
        )
        request = client.build_request(
            method,
            target.pinned_url,
            headers={
                "Host": target.authority,
                "User-Agent": _USER_AGENT,
                "Accept": "application/json, text/*",
                # A small compressed answer can be a large one: bytes are counted as they come.
                "Accept-Encoding": "identity",
            },
            json=body if method in _WITH_BODY and body is not None else None,
            # The certificate must be the name's, although the connection goes to the address.
            extensions={"sni_hostname": target.host},
        )
        try:
            async with client:
                response = await client.send(request, stream=True)
                try:
                    return await self._read(response)
                finally:
                    await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ToolError(f"{target.authority}: {type(error).__name__}: {error}") from error

    async def _read(self, response: httpx.Response) -> ApiResult:
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise ToolError(f"the answer is encoded as {encoding}, which was not asked for")
        limit = self._settings.max_bytes
        data = bytearray()
        async for chunk in response.aiter_raw():
            data += chunk
            if len(data) > limit:
                break
        return _result(response, bytes(data[:limit]), truncated=len(data) > limit)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """The context with the system's authorities: loading them takes longer than a call, so once."""
        import httpx

        return httpx.create_ssl_context(trust_env=False)


def _result(response: httpx.Response, data: bytes, *, truncated: bool) -> ApiResult:
    content_type = response.headers.get("Content-Type", "")
    parsed: Any = None
    text = ""
    if "json" in content_type and not truncated:
        try:
            parsed = json.loads(data)
        except (ValueError, RecursionError):
            text = data.decode("utf-8", "replace")
    elif _is_text(content_type):
        text = data.decode(response.encoding or "utf-8", "replace")
    elif data:
        text = f"<{len(data)} bytes of {content_type or 'unknown type'}>"
    return ApiResult(
        status=response.status_code,
        content_type=content_type[:200],
        location=response.headers.get("Location", "")[:500] if response.is_redirect else "",
        json_body=parsed,
        text=text,
        truncated=truncated,
    )


def _is_text(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind.startswith("text/") or kind.endswith(("json", "xml", "yaml", "csv", "javascript"))
