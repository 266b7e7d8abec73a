"""The Lua script of the register for callbacks; see :mod:`tasks.stores.scripts`."""

from __future__ import annotations

from typing import Final

from tasks.stores.link import Script

# KEYS row done UNPUBLISHED
# ARGV ref due again field value [field value ...]
# A callback is no request of its tenant: it takes no slot, and is not counted as open.
OUTBOX: Final = Script("""
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
if ARGV[3] == '0' and redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
redis.call('ZADD', KEYS[3], ARGV[2], ARGV[1])
return 1
""")
