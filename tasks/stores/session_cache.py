"""A copy of each session's newest version in Redis, so that a turn need not list the versions. It is never the truth.

Entries are sealed, because whoever can write to Redis must not be able to put words into a conversation. Of an entry
whose seal does not hold only the number of the version is used, and the version read from object storage.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from msgspec import Struct

from tasks import keys
from tasks.contracts.base import parse_versioned
from tasks.contracts.session import SessionVersion
from tasks.errors import MalformedMessage, NewerSchema, StoreError
from tasks.log import get_logger
from tasks.stores.link import Link, Script

log = get_logger()

_LEVEL: Final = 1
_MOST_DIGITS: Final = 12

# KEYS entry
# ARGV number seconds data seal
# A process that was held up must not bring back what is older, or was deleted since.
KEEP: Final = Script("""
local kept = redis.call('HGET', KEYS[1], 'number')
if kept and tonumber(kept) >= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'number', ARGV[1], 'data', ARGV[3], 'seal', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
""")


class Seals(Protocol):
    """Marks what processes of one kind keep for each other. The real one is :mod:`tasks.access.seals`."""

    def seal(self, data: bytes) -> str:
        """Return the mark of ``data``."""
        ...

    def holds(self, data: bytes, seal: str) -> bool:
        """Tell whether ``seal`` is the mark that such a process put on ``data``."""
        ...


class Remembered(Struct, frozen=True):
    """The number of the newest version that anybody told of, and that version where it is vouched for."""

    number: int
    version: SessionVersion | None = None


class SessionCache:
    """Entries last ``seconds`` after they were written; with 0 there are none. Without ``seals`` they are only numbers.

    Nothing here raises: a server that is away costs a listing.
    """

    def __init__(self, link: Link, *, seconds: int, seals: Seals | None = None) -> None:
        self._link = link
        self._seconds = seconds
        self._seals = seals

    async def get(self, tenant: str, session_id: str) -> Remembered | None:
        """Return what is remembered of a session."""
        if not self._seconds:
            return None
        try:
            key = keys.session_cache(tenant, session_id)
            number, data, seal = await self._link.call("HMGET", key, "number", "data", "seal")
        except StoreError as error:
            log.warning("session cache is away", error=str(error))
            return None
        if number is None or not number.isdigit() or len(number) > _MOST_DIGITS:
            return None
        found = int(number)
        return Remembered(found, self._read(keys.session(tenant, session_id, found), data or b"", seal or b""))

    def _read(self, key: str, data: bytes, seal: bytes) -> SessionVersion | None:
        if not (self._seals and data and self._seals.holds(_marked(key, data), seal.decode("ascii", "replace"))):
            return None
        import zstandard

        try:
            return parse_versioned(SessionVersion, zstandard.ZstdDecompressor().decompress(data))
        except (zstandard.ZstdError, MalformedMessage, NewerSchema):
            return None

    async def keep(self, version: SessionVersion) -> None:
        """Remember the newest version of a session, whose result must be there, unless a newer one is remembered."""
        import zstandard

        data = zstandard.ZstdCompressor(level=_LEVEL).compress(version.to_bytes()) if self._seals else b""
        await self._put(version, data)

    async def point(self, version: SessionVersion) -> None:
        """Remember the number of the newest version, and nothing else of it."""
        await self._put(version, b"")

    async def _put(self, version: SessionVersion, data: bytes) -> None:
        if not self._seconds:
            return
        key = keys.session(version.tenant, version.session_id, version.version)
        seal = self._seals.seal(_marked(key, data)) if self._seals and data else ""
        entry = keys.session_cache(version.tenant, version.session_id)
        try:
            await self._link.run(KEEP, [entry], [version.version, self._seconds, data, seal])
        except StoreError as error:
            log.warning("session cache is away", error=str(error))


class MemorySessionCache(SessionCache):
    """A cache in a dictionary, for unit tests. ``entries`` may be cleared or falsified."""

    def __init__(self) -> None:
        self.entries: dict[str, Any] = {}

    async def get(self, tenant: str, session_id: str) -> Remembered | None:
        """See :class:`SessionCache`."""
        return self.entries.get(keys.session_cache(tenant, session_id))

    async def keep(self, version: SessionVersion) -> None:
        """See :class:`SessionCache`."""
        self._newer(version, version)

    async def point(self, version: SessionVersion) -> None:
        """See :class:`SessionCache`."""
        self._newer(version, None)

    def _newer(self, version: SessionVersion, kept: SessionVersion | None) -> None:
        entry = keys.session_cache(version.tenant, version.session_id)
        if entry not in self.entries or self.entries[entry].number < version.version:
            self.entries[entry] = Remembered(version.version, kept)


def _marked(key: str, data: bytes) -> bytes:
    """Return what is sealed: which version it is of, and the data."""
    return key.encode() + b"\n" + data
