"""The weights of the shards on a Redis-protocol server, and who may write them.

There is one leader at a time, for as long as it says so. Each new one gets a fencing token, and every write is checked
for the newest: whoever was held up and comes back cannot overwrite what its successor wrote.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from tasks import keys
from tasks.contracts.weights import Weights
from tasks.log import get_logger
from tasks.stores.link import Link, Script

log = get_logger()

# KEYS coordinator fence weights
# ARGV holder milliseconds
# The token where the holder leads, else 0; and the weights. Sent twice, it gives the same token.
_LEAD: Final = Script("""
local holder = redis.call('HGET', KEYS[1], 'holder')
local token = 0
if not holder then
  token = redis.call('INCR', KEYS[2])
  redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'token', token)
elseif holder == ARGV[1] then
  token = tonumber(redis.call('HGET', KEYS[1], 'token'))
end
if token > 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return {token, redis.call('GET', KEYS[3])}
""")

# KEYS coordinator fence weights
# ARGV holder token weights milliseconds
# The holder is looked at too: a server that lost its data counts from one again.
_PUBLISH: Final = Script("""
if redis.call('HGET', KEYS[1], 'holder') ~= ARGV[1] or redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[4])
return 1
""")

_KEYS: Final = (keys.COORDINATOR, keys.COORDINATOR_FENCE, keys.WEIGHTS)


class Standing(Struct, frozen=True):
    """Where a candidate stands: its fencing ``token``, 0 where another leads, and the ``weights`` that are current."""

    token: int
    weights: Weights | None


class WeightStore:
    """Every method raises :class:`StoreError` when the server cannot be reached."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def lead(self, holder: str, *, seconds: float) -> Standing:
        """Lead for ``seconds`` more, if nobody else does, and read the weights."""
        token, raw = await self._link.run(_LEAD, _KEYS, [holder, _milliseconds(seconds)])
        return Standing(int(token), _decoded(raw))

    async def publish(self, weights: Weights, *, seconds: float) -> bool:
        """Write ``weights``, which are current for ``seconds``; tell whether their leader still may."""
        args = (weights.leader, weights.token, weights.to_bytes(), _milliseconds(seconds))
        return bool(await self._link.run(_PUBLISH, _KEYS, args))

    async def read(self) -> Weights | None:
        """Return the weights, if any are current."""
        return _decoded(await self._link.call("GET", keys.WEIGHTS))


def _milliseconds(seconds: float) -> int:
    return max(int(seconds * 1000), 1)


def _decoded(raw: bytes | None) -> Weights | None:
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=Weights)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        log.warning("weights that cannot be read, all shards are as good", error=str(error))
        return None
