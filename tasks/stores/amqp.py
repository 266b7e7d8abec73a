"""One process's connection to a server that speaks AMQP 0-9-1, and its channels; both are made anew when they are lost.

Nothing is done again by itself: a call that meets a lost connection fails, and the next one connects.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from msgspec import Struct

from tasks.errors import NotReady, SettingsError, StoreError, Unreachable

if TYPE_CHECKING:
    from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage

SCHEMES: Final = ("amqp", "amqps")
_CALL_SECONDS: Final = 20.0
"""How long the server may take for one answer. A quorum that elects a new leader takes some."""
_CONNECT_SECONDS: Final = 10.0
_HEARTBEAT_SECONDS: Final = 15
"""What both sides send while nothing else is said; a server that is silent for about three of them is gone."""


class Address(Struct, frozen=True):
    """Where the server is. ``url`` is what the library takes, ``name`` is for people and holds no password."""

    url: str
    name: str
    vhost: str
    user: str
    password: str
    management: str | None

    @classmethod
    def of(cls, url: str) -> Address:
        """Read ``amqp[s]://[user:password@]host[:port][/vhost][?management=http://host:15672]``.

        Raises:
            SettingsError: it is none.
        """
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        management = query.pop("management", None)
        if parts.scheme not in SCHEMES or not parts.hostname:
            raise SettingsError("broker_url: must be amqp://HOST or amqps://HOST, such as amqp://user:password@host/")
        if management is not None and urlsplit(management).scheme not in {"http", "https"}:
            raise SettingsError("broker_url: management: must be the URL of the management plugin, http://HOST:15672")
        query.setdefault("heartbeat", str(_HEARTBEAT_SECONDS))
        vhost = unquote(parts.path.removeprefix("/")) or "/"
        return cls(
            parts._replace(query=urlencode(query), path=parts.path or "/").geturl(),
            f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/{vhost.removeprefix('/')}",
            vhost,
            unquote(parts.username or "guest"),
            unquote(parts.password or "guest"),
            management.rstrip("/") if management else None,
        )


class Line:
    """A channel, and the messages that were delivered on it and are in hand, by number.

    When the channel is gone the server delivers them again, and their tags mean nothing any more.
    """

    def __init__(self, channel: AbstractChannel, name: str) -> None:
        self.channel = channel
        self.held: dict[int, DeliveredMessage] = {}
        self._name = name

    def hold(self, message: DeliveredMessage) -> str:
        """Keep ``message`` until it is taken by its tag, which is returned."""
        number = message.delivery_tag or 0
        self.held[number] = message
        return f"{self._name}\n{number}"


class Wire:
    """Not shared between event loops."""

    def __init__(self, address: Address) -> None:
        """Connect later, at the first use.

        Raises:
            NotReady: the client library is not installed.
        """
        try:
            import aiormq
        except ImportError as error:
            raise NotReady("broker_url: amqp needs aiormq: pip install 'sluice[rabbitmq]'") from error
        self._aiormq = aiormq
        self._address = address
        self._connection: AbstractConnection | None = None
        self._connecting: asyncio.Task[AbstractConnection] | None = None
        self._opening = asyncio.Lock()
        self._lines: dict[str, Line] = {}
        self._numbers = itertools.count(1)
        self.declared: set[str] = set()
        """The queues that are known to be there, by this connection."""

    async def line(self, purpose: str) -> Line:
        """Return the channel for ``purpose``. Call it, and use it, under :meth:`guarded`."""
        connection = await self._connected()
        async with self._opening:
            line = self._lines.get(purpose)
            if line is None or line.channel.is_closed or line.channel.connection is not connection:
                name = f"{purpose}\n{next(self._numbers)}"
                line = self._lines[purpose] = Line(await connection.channel(publisher_confirms=True), name)
        return line

    def found(self, tag: str) -> tuple[Line, DeliveredMessage] | None:
        """Return the message that ``tag`` names and takes it out of hand, with its channel; None if it is not there."""
        name, _, number = tag.rpartition("\n")
        line = self._lines.get(name.rpartition("\n")[0])
        if line is None or line._name != name or line.channel.is_closed:  # noqa: SLF001  of this module
            return None
        message = line.held.pop(int(number), None)
        return None if message is None else (line, message)

    @contextlib.asynccontextmanager
    async def guarded(self, doing: str) -> AsyncIterator[None]:
        """Bound the time of what is done inside, and raise what goes wrong there as :class:`StoreError`."""
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                yield
        except TimeoutError as error:
            await self.close()  # a server that does not answer may have taken what was sent, in any order
            raise Unreachable(f"{doing}: {self._address.name} does not answer") from error
        except OSError as error:
            raise Unreachable(f"{doing}: {self._address.name}: {error or type(error).__name__}") from error
        except (self._aiormq.AMQPError, RuntimeError) as error:
            raise StoreError(f"{doing}: {self._address.name}: {error or type(error).__name__}") from error

    async def close(self) -> None:
        """Close the connection. What is in hand is delivered again by the server; the next call connects anew."""
        connection, self._connection = self._connection, None
        self._lines.clear()
        if connection is not None and not connection.is_closed:
            with contextlib.suppress(self._aiormq.AMQPError, OSError, RuntimeError):
                async with asyncio.timeout(1):
                    # What else waits for an answer fails with this; by default it would look cancelled.
                    await connection.close(ConnectionError("the connection was given up"))

    async def _connected(self) -> AbstractConnection:
        if self._connection is not None and not self._connection.is_closed:
            return self._connection
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> AbstractConnection:
        async with asyncio.timeout(_CONNECT_SECONDS):
            connection = await self._aiormq.connect(self._address.url)
        self.declared.clear()
        self._lines.clear()
        self._connection = connection
        return connection


def header(message: DeliveredMessage, name: str) -> str:
    """Return a header of ``message`` as text, empty where there is none."""
    headers: Mapping[str, Any] = message.header.properties.headers or {}
    value = headers.get(name, "")
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
