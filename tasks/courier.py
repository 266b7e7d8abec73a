"""Brings a callback to its URL, and says what became of it. Nothing of the answer is read but its head."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Final

from tasks.access.outbound import Resolver, Target, Wall
from tasks.errors import CallbackFailed, CallbackRefused, ToolRefused, ToolUnavailable
from tasks.settings import CallbackSettings

if TYPE_CHECKING:
    import ssl

    import httpx

_AGAIN: Final = frozenset({408, 409, 425, 429})
"""What of 4xx may be otherwise later."""


class Courier:
    """Sends callbacks. ``resolve`` and ``transport`` stand in for the network in tests."""

    def __init__(
        self,
        settings: CallbackSettings,
        *,
        resolve: Resolver | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._seconds = settings.timeout_seconds
        self._wall = Wall(settings, resolve)
        self._transport = transport

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], *, now: datetime) -> int:
        """Send ``body``; return the status, which is one of success. Redirects are not followed.

        Raises:
            CallbackRefused: the URL must not be called, or the receiver does not want it.
            CallbackFailed: it was not taken; it may be later.
        """
        try:
            async with asyncio.timeout(self._seconds):
                # Each time anew: a name may lead elsewhere by now.
                target = await self._wall.check(url)
                answer = await self._send(target, body, headers)
        except ToolRefused as error:
            raise CallbackRefused(str(error)) from error
        except ToolUnavailable as error:
            raise CallbackFailed(str(error)) from error
        except TimeoutError as error:
            raise CallbackFailed(f"no answer within {self._seconds:g} s") from error
        status = answer.status_code
        if answer.is_success:
            return status
        told = f"{target.authority} answered {status}"
        if answer.is_client_error and status not in _AGAIN:
            raise CallbackRefused(told)
        raise CallbackFailed(told, retry_seconds=retry_after(answer.headers.get("Retry-After", ""), now))

    async def _send(self, target: Target, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        import httpx

        # A client for each call: no cookies, no connection of another host at the same address. Proxies of the
        # environment would resolve the name themselves, so they are left out.
        client = httpx.AsyncClient(
            transport=self._transport,
            verify=self._tls if target.scheme == "https" else False,
            trust_env=False,
            follow_redirects=False,
            timeout=self._seconds,
        )
        request = client.build_request(
            "POST",
            target.pinned_url,
            content=body,
            headers={
                **headers,
                "Host": target.authority,
                "Content-Type": "application/json",
                "User-Agent": "sluice-callback",
                "Accept-Encoding": "identity",
            },
            # The certificate must be the name's, although the connection goes to the address.
            extensions={"sni_hostname": target.host},
        )
        try:
            async with client:
                answer = await client.send(request, stream=True)
                await answer.aclose()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # Its text may hold the URL, and that a secret.
            raise CallbackFailed(f"{target.authority}: {type(error).__name__}") from error
        return answer

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """The context with the system's authorities: loading them takes longer than a call, so once."""
        import httpx

        return httpx.create_ssl_context(trust_env=False)


def retry_after(text: str, now: datetime) -> float:
    """Return the seconds that a ``Retry-After`` of seconds or a date asks for; 0 where it is none."""
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return float(text) if len(text) < 10 else 0.0
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max((moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds(), 0.0)
