"""The Lua scripts of the register for the steps of a plan; see :mod:`tasks.stores.scripts`.

A request's row has ``steps``, the ids of all steps of its plan, and ``woken`` once it need not wait for more of them. A
step's row has ``needs`` and ``needed_by``, ids of other steps, and ``vital`` where the plan fails with it.
"""

from __future__ import annotations

from typing import Final

from tasks import keys
from tasks.stores.link import Script

_ROW: Final = keys.row("")
_QUEUED: Final = keys.queued("")

# Whether all steps that a step needs have ended.
_IS_READY: Final = """
local function is_ready(needs, joined)
  for need in string.gmatch(needs, '%S+') do
    if redis.call('SISMEMBER', joined, need) == 0 then return false end
  end
  return true
end
local function count(ids)
  local _, number = string.gsub(ids, '%S+', '')
  return number
end
"""

# KEYS row LEASES UNPUBLISHED joined
# ARGV ref holder due look steps ended step-count, then for each step: ref needs needed-by vital field-count
# and field value [field value ...]
# Opens the rows of steps that are neither there nor over, then parks the request without its lease, to be looked at
# after `look`. Returns 0 and parks nothing where there is nothing to wait for; else 1 and the refs to be published.
# A command whose answer was lost is sent again: `released_by` tells that it had been done.
FAN_OUT: Final = Script(f"""{_IS_READY}
local r = redis.call('HMGET', KEYS[1], 'holder', 'released_by', 'woken')
local again = r[2] == ARGV[2]
if not again then
  if r[1] ~= ARGV[2] then return {{-1}} end
  redis.call('HSET', KEYS[1], 'steps', ARGV[5])
  for step in string.gmatch(ARGV[6], '%S+') do redis.call('SADD', KEYS[4], step) end
  if r[3] == '1' or redis.call('SCARD', KEYS[4]) >= count(ARGV[5]) then return {{0}} end
end
local out = {{1}}
local at = 8
for _ = 1, tonumber(ARGV[7]) do
  local ref, needs, fields = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 4])
  local row = '{_ROW}' .. ref
  if not again and redis.call('EXISTS', row, '{keys.done("")}' .. ref) == 0 then
    redis.call('HSET', row, 'needs', needs, 'needed_by', ARGV[at + 2], 'vital', ARGV[at + 3],
               unpack(ARGV, at + 5, at + 4 + fields))
    if is_ready(needs, KEYS[4]) then redis.call('ZADD', KEYS[3], ARGV[3], ref)
    else redis.call('HSET', row, 'parked', '1') end
  end
  local s = redis.call('HMGET', row, 'published', 'holder', 'parked')
  if s[1] == '0' and s[2] == '' and s[3] == '0' then out[#out + 1] = ref end
  at = at + 5 + fields
end
if not again then
  redis.call('HSET', KEYS[1], 'holder', '', 'released_by', ARGV[2], 'parked', '1', 'published', '0', 'attempts', '0',
             'due', ARGV[4])
  redis.call('HINCRBY', KEYS[1], 'generation', 1)
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1])
end
return out
""")

# KEYS step-row row joined UNPUBLISHED
# ARGV ref revision step ok now
# A step has ended: returns the refs that need not wait any longer, other steps or the request itself.
JOIN: Final = Script(f"""{_IS_READY}
local p = redis.call('HMGET', KEYS[2], 'revision', 'holder', 'parked', 'steps')
if p[1] ~= ARGV[2] or not p[4] then return {{}} end
redis.call('SADD', KEYS[3], ARGV[3])
local out = {{}}
local function release(ref)
  redis.call('HSET', '{_ROW}' .. ref, 'parked', '0', 'published', '0', 'due', ARGV[5])
  redis.call('HINCRBY', '{_ROW}' .. ref, 'generation', 1)
  redis.call('ZADD', KEYS[4], ARGV[5], ref)
  out[#out + 1] = ref
end
local s = redis.call('HMGET', KEYS[1], 'needed_by', 'vital')
local fatal = ARGV[4] == '0' and s[2] == '1'
if s[1] and not fatal then
  for step in string.gmatch(s[1], '%S+') do
    local ref = ARGV[1] .. '#r' .. ARGV[2] .. '.' .. step
    local d = redis.call('HMGET', '{_ROW}' .. ref, 'parked', 'needs')
    if d[1] == '1' and is_ready(d[2], KEYS[3]) then release(ref) end
  end
end
if fatal or redis.call('SCARD', KEYS[3]) >= count(p[4]) then
  redis.call('HSET', KEYS[2], 'woken', '1')
  if p[3] == '1' and p[2] == '' then release(ARGV[1]) end
end
return out
""")

# For CLEAR, with its functions: what is left of a plan ends with its request. Steps that run find that at their next
# heartbeat; the messages of those that are in a queue are dropped when they come.
DISBAND: Final = f"""
local function disband(ref, revision, steps, remember)
  for step in string.gmatch(steps, '%S+') do
    local name = ref .. '#r' .. revision .. '.' .. step
    local s = redis.call('HMGET', '{_ROW}' .. name, 'digest', 'queue', 'published', 'holder')
    if s[1] then
      bury('{keys.done("")}' .. name, s[1], revision, s[3], s[4], remember)
      redis.call('DEL', '{_ROW}' .. name)
      forget(name)
      redis.call('ZREM', '{_QUEUED}' .. s[2], name)
      redis.call('SREM', slots(name), name)
      redis.call('SREM', '{keys.open_requests("")}' .. string.match(name, '^[^/]*'), name)
    end
  end
  redis.call('DEL', '{keys.joined("")}' .. ref .. '#r' .. revision)
end
"""
