"""``api_caller``: calls an HTTP API on an allowed host."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urljoin

from pydantic import AfterValidator, Field, JsonValue

from tasks.access.outbound import Allowlist, Resolver, Target
from tasks.agents.tools.api_answer import ApiResult, answered, read_body
from tasks.agents.tools.base import Effect, Tool, ToolArguments, ToolContext
from tasks.agents.tools.credentials import filled, strike, values
from tasks.errors import SettingsError, ToolError, ToolRefused, ToolUnavailable, ToolUncertain
from tasks.settings import ApiToolSettings

if TYPE_CHECKING:
    import ssl

    import httpx

_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_IDEMPOTENT: Final = frozenset({"PUT", "DELETE"})
_FOLLOWED: Final = frozenset({"GET", "HEAD"})
_TRY_LATER: Final = frozenset({429, 502, 503, 504})
_USER_AGENT: Final = "sluice-api-caller"
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0


class ApiArguments(ToolArguments):
    """``body`` is sent as JSON. An agent sets no headers: they are where credentials would go."""

    url: Annotated[str, Field(min_length=1, max_length=2048, description="http or https URL")]
    method: Annotated[str, Field(pattern=r"^[A-Za-z]{3,7}$", description="HTTP method"), AfterValidator(str.upper)] = (
        "GET"
    )
    body: Annotated[JsonValue, Field(description="JSON to send")] = None


class ApiCaller(Tool[ApiArguments]):
    """The tool. ``resolve``, ``transport``, ``pause`` and ``chance`` are for tests; secrets come from ``environ``.

    Raises:
        SettingsError: a host of ``headers`` is not allowed, or a variable that one of them names is not set.
    """

    name = "api_caller"
    arguments = ApiArguments

    def __init__(
        self,
        settings: ApiToolSettings,
        *,
        environ: Mapping[str, str] | None = None,
        resolve: Resolver | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._methods = frozenset(method.upper() for method in settings.allowed_methods)
        self._allowed = Allowlist(settings.allowed_hosts, resolve)
        hosts = ", ".join(settings.allowed_hosts) or "none"
        self.description = f"Call an HTTP API with {', '.join(sorted(self._methods))}. Allowed hosts: {hosts}."
        self._transport = transport
        self._pause = pause
        self._chance = chance
        self._environ = os.environ if environ is None else environ
        self._headers = [
            (Allowlist([host], where="tools.api_caller.headers"), host, headers)
            for host, headers in settings.headers.items()
        ]
        self._honouring = Allowlist(settings.idempotent_hosts, where="tools.api_caller.idempotent_hosts")
        for host in settings.headers:
            if host not in settings.allowed_hosts:
                raise SettingsError(f"tools.api_caller.headers: {host!r} is not one of allowed_hosts")
            self._filled(host)

    def effect_of(self, arguments: ApiArguments) -> Effect:
        """Return what the method does, as HTTP defines it; hosts that honour the key bear any of them twice."""
        if arguments.method in _READING:
            return Effect.READ
        if arguments.method in _IDEMPOTENT or self._honouring.covers(arguments.url):
            return Effect.IDEMPOTENT
        return Effect.ONCE

    async def call(self, arguments: ApiArguments, context: ToolContext) -> ApiResult:
        """Send the request and read at most ``max_bytes`` of the answer. Status 400 is a result too.

        Redirects of GET and HEAD are followed, each checked like the first URL. What may be repeated is tried again,
        after a pause, where the host cannot be reached or says 429, 502, 503 or 504.

        Raises:
            ToolRefused: the method, host or address is not allowed.
            ToolUnavailable: the host was not reached.
            ToolUncertain: the request was sent and no answer came; it may have been carried out.
        """
        if arguments.method not in self._methods:
            raise ToolRefused(f"method {arguments.method} is not allowed; allowed: {', '.join(sorted(self._methods))}")
        if arguments.body is not None and arguments.method not in _WITH_BODY:
            raise ToolRefused(f"a {arguments.method} request has no body")
        unanswered = ToolUncertain if self.effect_of(arguments) is Effect.ONCE else ToolUnavailable
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                return await self._followed(arguments, context.idempotency_key)
        except TimeoutError as error:
            raise unanswered(f"no answer within {self._settings.timeout_seconds:g} s") from error

    async def _followed(self, arguments: ApiArguments, key: str) -> ApiResult:
        url = arguments.url
        for _ in range(self._settings.max_redirects + 1):
            result = await self._tried(arguments, url, key)
            if not result.location or arguments.method not in _FOLLOWED:
                return result
            following = urljoin(url, result.location)
            if url.startswith("https:") and following.startswith("http:"):
                raise ToolRefused("the answer is a redirect from https to http, which is not followed")
            url = following
        raise ToolError(f"more than {self._settings.max_redirects} redirects")

    async def _tried(self, arguments: ApiArguments, url: str, key: str) -> ApiResult:
        repeatable = self.effect_of(arguments) is not Effect.ONCE
        left = self._settings.retries if repeatable else 0
        ceiling = _FIRST_PAUSE
        while True:
            # Each time anew: a name may lead elsewhere by now.
            target = await self._allowed.check(url)
            try:
                result = await self._send(arguments, target, url, key)
                if not left or result.status not in _TRY_LATER:
                    return result
                asked = result.retry_after
            except ToolUnavailable:
                if not left:
                    raise
                asked = 0.0
            left -= 1
            await self._pause(min(max(asked, ceiling * self._chance()), _LONGEST_PAUSE))
            ceiling *= 2

    async def _send(self, arguments: ApiArguments, target: Target, url: str, key: str) -> ApiResult:
        import httpx

        headers, secrets = self._credentials(url)
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
            arguments.method,
            target.pinned_url,
            headers={
                **headers,
                **({"Idempotency-Key": key} if key else {}),
                "Host": target.authority,
                "User-Agent": _USER_AGENT,
                "Accept": "application/json, text/*",
                "Accept-Encoding": "identity",
            },
            json=arguments.body if arguments.method in _WITH_BODY and arguments.body is not None else None,
            # The certificate must be the name's, although the connection goes to the address.
            extensions={"sni_hostname": target.host},
        )
        try:
            async with client:
                response = await client.send(request, stream=True)
                try:
                    data, truncated = await read_body(response, self._settings.max_bytes)
                finally:
                    await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise ToolUnavailable(self._told(target, error, secrets)) from error
        except httpx.HTTPError as error:
            once = self.effect_of(arguments) is Effect.ONCE
            raise (ToolUncertain if once else ToolUnavailable)(self._told(target, error, secrets)) from error
        return answered(response, data, truncated=truncated, strike=lambda text: strike(text, secrets, cut=truncated))

    def _told(self, target: Target, error: Exception, secrets: list[str]) -> str:
        return strike(f"{target.authority}: {type(error).__name__}: {error}", secrets)

    def _credentials(self, url: str) -> tuple[dict[str, str], list[str]]:
        """Return the headers for the host of ``url``, and the secrets in them."""
        for covering, host, templates in self._headers:
            if covering.covers(url):
                return self._filled(host), [v for text in templates.values() for v in values(text, self._environ)]
        return {}, []

    def _filled(self, host: str) -> dict[str, str]:
        return {
            name: filled(text, self._environ, where=f"tools.api_caller.headers.{host}.{name}")
            for name, text in self._settings.headers[host].items()
        }

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """The context with the system's authorities: loading them takes longer than a call, so once."""
        import httpx

        return httpx.create_ssl_context(trust_env=False)
