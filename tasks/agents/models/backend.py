"""What the cache keeps of a model: the connections behind its clients."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from tasks.agents.models.base import ModelClient


async def _nothing() -> None:
    """For models that have no connections."""


class Backend(Struct, frozen=True):
    """Makes the clients of one model.

    ``client`` makes a cheap one for each request, from a temperature and the longest answer in tokens (None: the
    model's own limit). ``warm`` opens a connection, so that the first request need not. ``close`` closes all of them.
    """

    client: Callable[[float, int | None], ModelClient]
    warm: Callable[[], Awaitable[None]] = _nothing
    close: Callable[[], Awaitable[None]] = _nothing
