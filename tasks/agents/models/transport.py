"""A pool of HTTP connections for many requests at once to one server.

httpx's own pool looks at each of its connections for each request: with a thousand requests in flight that takes most
of the worker's time. This one takes a free connection from the top of a stack, or opens another. The connections
themselves, TLS and HTTP/1.1, are httpcore's, as they are in httpx.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx


def open_transport(url: str, *, keep_alive_seconds: float) -> httpx.AsyncBaseTransport:
    """Return what requests to ``url`` go through: a :class:`Pool`, or httpx's own where a proxy is in between."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxy = getproxies().get(parts.scheme)
    if proxy and not is_loopback(url) and not proxy_bypass(host):
        return httpx.AsyncHTTPTransport(proxy=proxy, limits=httpx.Limits(keepalive_expiry=keep_alive_seconds))
    return Pool(url, keep_alive_seconds=keep_alive_seconds)


def is_loopback(url: str) -> bool:
    """Tell whether ``url`` leads to this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Pool(httpx.AsyncBaseTransport):
    """Connections to one server, as many as there are requests; a free one is kept for ``keep_alive_seconds``."""

    def __init__(self, url: str, *, keep_alive_seconds: float) -> None:
        # Loading the authorities' certificates takes 20 ms that plain http has no use for.
        self._tls = httpx.create_ssl_context() if url.startswith("https:") else None
        self._keep_alive = keep_alive_seconds
        self._free: deque[httpcore.AsyncHTTPConnection] = deque()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request``; the connection is free again when the response is closed."""
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        connection = await self._take(url.origin)
        try:
            with _translated():
                response = await connection.handle_async_request(
                    httpcore.Request(
                        request.method,
                        url,
                        headers=request.headers.raw,
                        content=request.stream,
                        extensions=request.extensions,
                    )
                )
        except BaseException:
            await connection.aclose()
            raise
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Body(response, connection, self),
            extensions=response.extensions,
        )

    async def give_back(self, connection: httpcore.AsyncHTTPConnection) -> None:
        """Keep ``connection`` if it can be used again, and close those that were free for too long."""
        while self._free and self._free[0].has_expired():
            await self._free.popleft().aclose()
        if self._keep_alive and connection.is_idle():
            self._free.append(connection)
        else:
            await connection.aclose()

    async def aclose(self) -> None:
        """Close the free connections; the others close at the end of their requests."""
        self._keep_alive = 0
        while self._free:
            await self._free.pop().aclose()

    async def _take(self, origin: httpcore.Origin) -> httpcore.AsyncHTTPConnection:
        while self._free:
            connection = self._free.pop()
            if connection.is_available() and not connection.has_expired():
                return connection
            await connection.aclose()
        return httpcore.AsyncHTTPConnection(origin, ssl_context=self._tls, keepalive_expiry=self._keep_alive or None)


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response, connection: httpcore.AsyncHTTPConnection, pool: Pool) -> None:
        self._stream: Any = response.stream
        self._connection = connection
        self._pool = pool

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translated():
            async for part in self._stream:
                yield part

    async def aclose(self) -> None:
        await self._stream.aclose()
        await self._pool.give_back(self._connection)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Raise httpcore's errors as httpx's, which have the same names."""
    try:
        yield
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
        raise getattr(httpx, type(error).__name__, httpx.TransportError)(str(error)) from error
