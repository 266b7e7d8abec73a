"""Once in a window, across processes: what several see at the same time is acted upon by one of them."""

from __future__ import annotations

from typing import Final, Protocol

from tasks import keys
from tasks.stores.link import Link, Script


class Windows(Protocol):
    """The port. Times are seconds."""

    async def claim(
        self, rule: str, tenant: str, record: str, *, threshold: int, window: float, lease: float
    ) -> int | None:
        """Count ``record``; return how many there are where it is the one that reaches the threshold, else None.

        Whoever gets a number has the window to itself for ``lease`` seconds, and keeps it once all is done: where it
        dies before that, the next one acts.
        """

    async def keep(self, rule: str, tenant: str, record: str, *, window: float) -> None:
        """Let nobody claim until ``window`` seconds are over."""


# KEYS fired seen
# ARGV record threshold window-ms lease-ms
# A command whose answer was lost is sent again: the record is counted once, and its own claim is its own.
CLAIM: Final = Script("""
local fired = redis.call('GET', KEYS[1])
if fired then
  local record, count = string.match(fired, '^(%S+) (%d+)$')
  if record == ARGV[1] then return tonumber(count) end
  return false
end
redis.call('SADD', KEYS[2], ARGV[1])
if redis.call('PTTL', KEYS[2]) < 0 then redis.call('PEXPIRE', KEYS[2], ARGV[3]) end
local count = redis.call('SCARD', KEYS[2])
if count < tonumber(ARGV[2]) then return false end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. count, 'PX', ARGV[4], 'NX')
redis.call('DEL', KEYS[2])
return count
""")

# KEYS fired
# ARGV record window-ms
KEEP: Final = Script("""
local fired = redis.call('GET', KEYS[1])
if not fired or string.match(fired, '^(%S+) ') ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")


class RedisWindows:
    """See :class:`Windows`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def claim(
        self, rule: str, tenant: str, record: str, *, threshold: int, window: float, lease: float
    ) -> int | None:
        """See the port."""
        count = await self._link.run(
            CLAIM,
            [keys.alert_window(rule, tenant), keys.alert_seen(rule, tenant)],
            [record, threshold, _milliseconds(window), _milliseconds(lease)],
        )
        return int(count) if count else None

    async def keep(self, rule: str, tenant: str, record: str, *, window: float) -> None:
        """See the port."""
        await self._link.run(KEEP, [keys.alert_window(rule, tenant)], [record, _milliseconds(window)])


class MemoryWindows:
    """The same in memory, for unit tests. ``forget`` plays the end of every window."""

    def __init__(self) -> None:
        self._fired: dict[tuple[str, str], tuple[str, int]] = {}
        self._seen: dict[tuple[str, str], set[str]] = {}

    def forget(self) -> None:
        """End every window."""
        self._fired.clear()
        self._seen.clear()

    async def claim(
        self, rule: str, tenant: str, record: str, *, threshold: int, window: float, lease: float
    ) -> int | None:
        """See the port. Nothing ends by itself: no clock runs here."""
        place = rule, tenant
        if place in self._fired:
            owner, count = self._fired[place]
            return count if owner == record else None
        seen = self._seen.setdefault(place, set())
        seen.add(record)
        if len(seen) < threshold:
            return None
        self._fired[place] = record, len(seen)
        del self._seen[place]
        return self._fired[place][1]

    async def keep(self, rule: str, tenant: str, record: str, *, window: float) -> None:
        """See the port."""


def _milliseconds(seconds: float) -> int:
    return max(int(seconds * 1000), 1)
