"""What only RabbitMQ's management plugin tells: how many messages are delivered and not acknowledged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec

from tasks.errors import StoreError, Unreachable
from tasks.stores.amqp import Address

if TYPE_CHECKING:
    import httpx

_SECONDS: Final = 10.0
_COLUMNS: Final = "name,messages,messages_unacknowledged"


class Figures(msgspec.Struct, frozen=True):
    """A queue's figures, some seconds old. ``messages`` is all there is, None where it was not counted yet."""

    name: str
    messages: int | None = None
    messages_unacknowledged: int | None = None


class Management:
    """The queues of one virtual host, by HTTP. Its user needs the tag ``monitoring``, or ``management`` for its own."""

    def __init__(self, url: str, address: Address) -> None:
        self._url = f"{url}/api/queues/{quote(address.vhost, safe='')}?columns={_COLUMNS}"
        self._auth = (address.user, address.password)
        self._client: httpx.AsyncClient | None = None

    async def figures(self) -> dict[str, Figures]:
        """Return the figures of each queue, by name.

        Raises:
            StoreError: the plugin does not answer, or not with figures.
        """
        import httpx

        if self._client is None:
            self._client = httpx.AsyncClient(auth=self._auth, timeout=_SECONDS, trust_env=False)
        told = self._url.partition("/api/")[0].rpartition("@")[2]
        try:
            answer = await self._client.get(self._url)
            answer.raise_for_status()
            return {one.name: one for one in msgspec.json.decode(answer.content, type=list[Figures])}
        except httpx.HTTPStatusError as error:
            raise StoreError(f"broker_url: management {told}: HTTP status {error.response.status_code}") from error
        except httpx.HTTPError as error:
            raise Unreachable(f"broker_url: management {told}: {error or type(error).__name__}") from error
        except msgspec.MsgspecError as error:
            raise StoreError(f"broker_url: management {told}: no figures: {error}") from error

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
