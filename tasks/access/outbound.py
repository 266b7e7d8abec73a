"""Which URL may be called, and at which address: the wall against server-side request forgery."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from tasks.errors import SettingsError, ToolError, ToolRefused, ToolUnavailable
from tasks.settings import CallbackSettings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[list[str]]]
"""Takes a host and a port, gives its addresses as text."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
"""All of IPv6 that is the internet. Mapped, translated, site-local and unique local addresses lie outside."""
_NOT_PUBLIC: Final = tuple(
    ipaddress.ip_network(text)
    # IETF's own and Teredo, documentation twice, 6to4: the first and the last hide IPv4 addresses.
    # The last two are 6to4's relays, and where Azure's machines get their settings and tokens.
    for text in ("2001::/23", "2001:db8::/32", "3fff::/20", "2002::/16", "192.88.99.0/24", "168.63.129.16/32")
)
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})
"""The upper half of an interface id whose lower half is an IPv4 address."""
_MAX_URL: Final = 2048


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be called: connect to ``address`` and nowhere else, and speak as to ``host``.

    ``authority`` is what the Host header says. ``path`` holds the query too.
    """

    scheme: str
    host: str
    port: int
    authority: str
    path: str
    address: str

    @property
    def pinned_url(self) -> str:
        """The URL with the checked address in place of the name: nothing resolves the name a second time."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.scheme}://{host}:{self.port}{self.path}"


class Allowlist:
    """Hosts that may be called: ``host`` at its scheme's own port, ``host:port`` at that port.

    A name must lead to public addresses only. A private, link-local or loopback address may be called where
    the entry is that very address, and loopback where the entry is ``localhost``: then somebody meant it.
    """

    def __init__(
        self, entries: Iterable[str], resolve: Resolver | None = None, *, where: str = "tools.api_caller.allowed_hosts"
    ) -> None:
        self._hosts = _Hosts(entries, where)
        self._resolve = resolve or resolve_host

    def covers(self, url: str) -> bool:
        """Tell whether an entry stands for the host of ``url``; nothing is resolved, and this does not allow a call."""
        try:
            return self._hosts.name(_split(url))
        except ToolRefused:
            return False

    async def check(self, url: str) -> Target:
        """Return where a call of ``url`` must go.

        Raises:
            ToolRefused: it must not be called; the message says why.
            ToolUnavailable: its name leads nowhere.
        """
        parts = _split(url)
        host = _host(parts)
        if not self._hosts.name(parts):
            raise ToolRefused(f"{host}:{_port(parts)} is not an allowed host")
        found = await _addresses(parts, self._resolve)
        # An address that is on the list by its own number somebody meant.
        if _literal(host) is None:
            _all_fit(host, found, lambda it: it.is_loopback if host == "localhost" else is_public(it))
        return _target(parts, found)


class Wall:
    """Whom callbacks may be sent to: any public host, or only ``allowed_hosts``.

    ``private_hosts`` are allowed too, at whatever address.
    """

    def __init__(self, settings: CallbackSettings, resolve: Resolver | None = None) -> None:
        self._allow_http = settings.allow_http
        self._is_open = not settings.allowed_hosts
        self._allowed = _Hosts(settings.allowed_hosts, "callbacks.allowed_hosts")
        self._private = _Hosts(settings.private_hosts, "callbacks.private_hosts")
        self._resolve = resolve or resolve_host

    def admit(self, url: str) -> None:
        """Raise :class:`ToolRefused` where the URL alone shows that it must not be called; nothing is resolved."""
        self._admitted(url)

    async def check(self, url: str) -> Target:
        """Return where a call of ``url`` must go; raises as :meth:`Allowlist.check`."""
        parts = self._admitted(url)
        found = await _addresses(parts, self._resolve)
        if not self._private.name(parts):
            _all_fit(_host(parts), found, is_public)
        return _target(parts, found)

    def _admitted(self, url: str) -> SplitResult:
        parts = _split(url)
        host, port = _host(parts), _port(parts)
        if parts.scheme == "http" and not self._allow_http:
            raise ToolRefused("http:// is not allowed: use https://, or set callbacks.allow_http")
        if self._private.name(parts):
            return parts
        if not self._is_open and not self._allowed.name(parts):
            raise ToolRefused(f"{host}:{port} is not an allowed host: see callbacks.allowed_hosts")
        literal = _literal(host)
        if host == "localhost" or (literal is not None and not is_public(literal)):
            raise ToolRefused(f"{host} is not a public address: see callbacks.private_hosts")
        return parts


class _Hosts:
    """``host`` at its scheme's own port, ``host:port`` at that port."""

    def __init__(self, entries: Iterable[str], where: str) -> None:
        self._entries = frozenset(_entry(text, where) for text in entries)

    def name(self, parts: SplitResult) -> bool:
        """Tell whether an entry stands for the host of a URL."""
        host, port = _host(parts), _port(parts)
        at_own_port = port == _DEFAULT_PORTS[parts.scheme]
        return (host, port) in self._entries or ((host, None) in self._entries and at_own_port)


async def _addresses(parts: SplitResult, resolve: Resolver) -> list[Address]:
    host = _host(parts)
    literal = _literal(host)
    if literal is not None:
        return [literal]
    try:
        found = [ipaddress.ip_address(text) for text in await resolve(host, _port(parts))]
    except (OSError, ValueError) as error:
        raise ToolUnavailable(f"{host} does not resolve to an address") from error
    if not found:
        raise ToolUnavailable(f"{host} does not resolve to an address")
    return found


def _all_fit(host: str, found: Iterable[Address], fits: Callable[[Address], bool]) -> None:
    # All must be fit: an attacker's name would give a good one and a bad one and wait for its turn.
    for address in found:
        if not fits(address):
            raise ToolRefused(f"{host} leads to {address}, which is not a public address")


def _target(parts: SplitResult, found: Sequence[Address]) -> Target:
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    authority = parts.netloc.rpartition("@")[2]
    return Target(parts.scheme, _host(parts), _port(parts), authority, path, str(found[0]))


def is_public(address: Address) -> bool:
    """Tell whether ``address`` is on the public internet, also where an IPv4 address hides in an IPv6 one."""
    if any(address.version == network.version and address in network for network in _NOT_PUBLIC):
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address not in _GLOBAL_UNICAST:
            return False
        hidden = int(address) & 0xFFFFFFFF
        if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP and not is_public(ipaddress.IPv4Address(hidden)):
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


async def resolve_host(host: str, port: int) -> list[str]:
    """Return the addresses of ``host`` by the system's resolver, without blocking the loop."""
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(info[4][0]).partition("%")[0] for info in infos]


def _split(url: str) -> SplitResult:
    # Refused rather than repaired: parsers disagree on these, and one of them is behind us.
    if len(url) > _MAX_URL or not url.isascii() or any(character <= " " or character in "\\\x7f" for character in url):
        raise ToolRefused(f"not a URL: give at most {_MAX_URL} ASCII characters without spaces and backslashes")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ToolRefused(f"not a URL: {error}") from error
    if parts.scheme not in _DEFAULT_PORTS:
        raise ToolRefused("only http:// and https:// URLs can be called")
    if "@" in parts.netloc:
        raise ToolRefused("a URL with a user name or password cannot be called")
    return parts


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").rstrip(".").lower()
    if not host:
        raise ToolRefused("the URL names no host")
    literal = _literal(host)
    return str(literal) if literal is not None else host


def _port(parts: SplitResult) -> int:
    try:
        return parts.port or _DEFAULT_PORTS[parts.scheme]
    except ValueError as error:
        raise ToolRefused("the URL's port is not a number from 1 to 65535") from error


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _entry(text: str, where: str) -> tuple[str, int | None]:
    literal = _literal(text.strip("[]"))
    if literal is not None:
        return str(literal), None
    try:
        parts = urlsplit(f"//{text}")
        host, port = _host(parts), parts.port
    except (ValueError, ToolError) as error:
        raise SettingsError(f"{where}: {text!r} is not host or host:port") from error
    if parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        raise SettingsError(f"{where}: {text!r} is not host or host:port")
    return host, port
