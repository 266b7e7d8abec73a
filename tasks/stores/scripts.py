"""The Lua scripts of register, broker and relay. Each is one atomic step; KEYS and ARGV are listed above it.

Rows are hashes of strings. All keys share one hash tag, so that a script may also reach keys whose names it learns
from a row (the queue's sorted set, the session's line).
"""

from __future__ import annotations

from typing import Final

from tasks import keys
from tasks.stores.link import Script
from tasks.stores.step_scripts import DISBAND

_QUEUED: Final = keys.queued("")
_ROW: Final = keys.row("")
USAGE_SECONDS: Final = 100 * 24 * 3600
"""How long what a tenant used on a day is remembered."""

# Who is first in a session's line. Refs whose row is gone are dropped: nobody would ever clear them.
_HEAD: Final = f"""
local function head(line)
  while true do
    local first = redis.call('LINDEX', line, 0)
    if not first or redis.call('EXISTS', '{_ROW}' .. first) == 1 then return first end
    redis.call('LPOP', line)
  end
end
"""

# Onto a queue. Who finds it empty goes to sleep, so the first message in it is what wakes.
_PUSH: Final = f"""
local function push(queue, item, at_front)
  local key = '{keys.waiting("")}' .. queue
  if redis.call(at_front and 'RPUSH' or 'LPUSH', key, item) == 1 then
    redis.call('PUBLISH', '{keys.bell("")}' .. queue, '')
  end
end
"""

# The set of a tenant's requests that have a slot.
_SLOTS: Final = f"""
local function slots(ref) return '{keys.admitted("")}' .. string.match(ref, '^[^/]*') end
"""

# A row that is gone leaves no trace.
_FORGET: Final = f"""
local function forget(ref)
  redis.call('ZREM', '{keys.LEASES}', ref)
  redis.call('ZREM', '{keys.UNPUBLISHED}', ref)
  redis.call('ZREM', '{keys.DEADLINES}', ref)
end
"""

# What a tombstone says: the digest of a request, after a space the revision that ended last, where it is not 1, and
# after another one `unread` where it ended while its message waited in a queue.
_ENDED: Final = """
local function ended_revision(tombstone)
  local kept = redis.call('GET', tombstone)
  if not kept then return nil, 0 end
  local digest, revision, unread = string.match(kept, '^(%S*) ?(%d*) ?(%l*)$')
  return digest, tonumber(revision) or 1, unread == 'unread'
end
local function bury(tombstone, digest, revision, published, holder, remember)
  local text = revision == '1' and digest or digest .. ' ' .. revision
  if published == '1' and holder == '' then text = digest .. ' ' .. revision .. ' unread' end
  redis.call('SET', tombstone, text, 'EX', remember)
end
"""

# KEYS row done UNPUBLISHED DEADLINES open admitted throttled THROTTLED usage
# ARGV ref digest due deadline session-line most-open slots tokens micros turn tenant revision field value [...]
# Empty: no limit. What waits for a slot is published by whoever frees one: it is nothing for the sweeper.
# A later revision of a request is opened once the one before it has ended.
OPEN: Final = Script(f"""{_ENDED}
local r = redis.call('HMGET', KEYS[1], 'digest', 'revision')
if r[1] then
  if r[1] ~= ARGV[2] then return 'conflict' end
  return tonumber(ARGV[12]) > tonumber(r[2]) and 'unfinished' or 'same'
end
local past, ended = ended_revision(KEYS[2])
if past and past ~= ARGV[2] then return 'conflict' end
if past and tonumber(ARGV[12]) <= ended then return 'finished' end
if ARGV[6] ~= '' and redis.call('SCARD', KEYS[5]) >= tonumber(ARGV[6]) then return 'full' end
if ARGV[8] ~= '' or ARGV[9] ~= '' then
  local used = redis.call('HMGET', KEYS[9], 'input_tokens', 'output_tokens', 'micros')
  local tokens = tonumber(used[1] or 0) + tonumber(used[2] or 0)
  if ARGV[8] ~= '' and tokens >= tonumber(ARGV[8]) then return 'spent' end
  if ARGV[9] ~= '' and tonumber(used[3] or 0) >= tonumber(ARGV[9]) then return 'spent' end
end
redis.call('HSET', KEYS[1], unpack(ARGV, 13))
redis.call('SADD', KEYS[5], ARGV[1])
local throttled = ARGV[7] ~= '' and redis.call('SCARD', KEYS[6]) >= tonumber(ARGV[7])
if throttled then
  redis.call('HSET', KEYS[1], 'throttled', '1')
  redis.call('ZADD', KEYS[7], ARGV[10], ARGV[1])
  redis.call('SADD', KEYS[8], ARGV[11])
else
  redis.call('SADD', KEYS[6], ARGV[1])
  redis.call('ZADD', KEYS[3], ARGV[3], ARGV[1])
end
if ARGV[4] ~= '' then redis.call('ZADD', KEYS[4], ARGV[4], ARGV[1]) end
if ARGV[5] ~= '' then redis.call('RPUSH', ARGV[5], ARGV[1]) end
return throttled and 'throttled' or 'created'
""")

# KEYS row UNPUBLISHED queued
# ARGV ref queue generation now
PUBLISHED: Final = Script("""
local r = redis.call('HMGET', KEYS[1], 'queue', 'generation', 'published', 'holder', 'parked', 'throttled')
if r[6] == '1' then
  redis.call('HSET', KEYS[1], 'recorded', '1')
  return 0
end
if r[1] ~= ARGV[2] or r[2] ~= ARGV[3] or r[3] ~= '0' or r[4] ~= '' or r[5] == '1' then return 0 end
redis.call('HSET', KEYS[1], 'published', '1', 'recorded', '1', 'queued_at', ARGV[4])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1])
return 1
""")

# KEYS row UNPUBLISHED queued
# ARGV ref queue generation now item
# As PUBLISHED, with the publishing itself. The sweeper may have done it since: then there is nothing to do.
DISPATCH: Final = Script(f"""{_PUSH}
local r = redis.call('HMGET', KEYS[1], 'queue', 'generation', 'published', 'holder', 'parked', 'throttled')
if r[6] == '1' then
  redis.call('HSET', KEYS[1], 'recorded', '1')
  return 0
end
if r[1] ~= ARGV[2] or r[2] ~= ARGV[3] or r[3] ~= '0' or r[4] ~= '' or r[5] == '1' then return 0 end
push(ARGV[2], ARGV[5])
redis.call('HSET', KEYS[1], 'published', '1', 'recorded', '1', 'queued_at', ARGV[4])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1])
return 1
""")

# KEYS row LEASES UNPUBLISHED queued
# ARGV ref holder stage queue message now item
# ADVANCE and DISPATCH in one step: there is no gap to mend.
HAND_OVER: Final = Script(f"""{_PUSH}
local r = redis.call('HMGET', KEYS[1], 'holder', 'released_by')
if r[2] == ARGV[2] then return 1 end
if r[1] ~= ARGV[2] then return -1 end
redis.call('HSET', KEYS[1], 'holder', '', 'released_by', ARGV[2], 'stage', ARGV[3], 'queue', ARGV[4],
           'message', ARGV[5], 'published', '1', 'recorded', '1', 'attempts', '0', 'queued_at', ARGV[6])
redis.call('HINCRBY', KEYS[1], 'generation', 1)
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[6], ARGV[1])
push(ARGV[4], ARGV[7])
return 1
""")

# KEYS row done LEASES UNPUBLISHED
# ARGV ref stage revision digest holder now lease-end attempts queue seal
# The seal is the SHA-1 of the message that was found: whoever can write to a queue must not be able to change what the
# register has. SHA-1 is what Lua has here; finding a second text for a given one (a preimage) is beyond everybody.
# A turn that waits for the one before it has no slot: that one may need it.
# The holder's own lease means that the command was sent twice: its first answer was lost.
BEGIN: Final = Script(f"""{_HEAD}{_SLOTS}{_ENDED}
local r = redis.call('HMGET', KEYS[1], 'digest', 'stage', 'revision', 'holder', 'lease_end', 'attempts', 'queue',
                     'session', 'message')
if not r[1] then
  local digest, ended, unread = ended_revision(KEYS[2])
  if unread and tonumber(ARGV[3]) == ended and digest == ARGV[4] then
    redis.call('SET', KEYS[2], digest .. ' ' .. ended, 'KEEPTTL')
    return {{'dropped', 0}}
  end
  return {{tonumber(ARGV[3]) <= ended and 'finished' or 'unknown', 0}}
end
if r[1] ~= ARGV[4] then return {{'mismatch', 0}} end
if r[2] ~= ARGV[2] or r[3] ~= ARGV[3] or (ARGV[9] ~= '' and ARGV[9] ~= r[7]) then return {{'stale', 0}} end
if ARGV[10] ~= '' and redis.sha1hex(r[9]) ~= ARGV[10] then return {{'mismatch', 0}} end
if r[4] == ARGV[5] then
  return {{tonumber(r[6]) > tonumber(ARGV[8]) and 'exhausted' or 'started', tonumber(r[6])}}
end
if r[4] ~= '' and tonumber(r[5]) > tonumber(ARGV[6]) then return {{'held', 0}} end
redis.call('ZREM', '{_QUEUED}' .. r[7], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
if r[2] == 'work' and r[8] ~= '' and head(r[8]) ~= ARGV[1] then
  redis.call('HSET', KEYS[1], 'parked', '1', 'published', '0', 'holder', '')
  redis.call('ZREM', KEYS[3], ARGV[1])
  redis.call('SREM', slots(ARGV[1]), ARGV[1])
  return {{'parked', 0}}
end
local attempts = tonumber(r[6]) + 1
redis.call('HSET', KEYS[1], 'holder', ARGV[5], 'lease_end', ARGV[7], 'attempts', attempts, 'published', '1',
           'recorded', '1', 'parked', '0', 'throttled', '0', 'losses', '0')
redis.call('ZADD', KEYS[3], ARGV[7], ARGV[1])
if r[2] ~= 'deliver' then redis.call('SADD', slots(ARGV[1]), ARGV[1]) end
if attempts > tonumber(ARGV[8]) then return {{'exhausted', attempts}} end
return {{'started', attempts}}
""")

# KEYS row LEASES done
# ARGV ref holder lease-end revision
# The numbers are those of `Kept`.
EXTEND: Final = Script(f"""{_ENDED}
local holder = redis.call('HGET', KEYS[1], 'holder')
if not holder then
  local _, ended = ended_revision(KEYS[3])
  return tonumber(ARGV[4]) <= ended and 2 or 1
end
if holder == '' then return 1 end
if holder ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'lease_end', ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
return 1
""")

# KEYS row LEASES UNPUBLISHED
# ARGV ref holder stage queue message due
# A command whose answer was lost is sent again: ``released_by`` tells that it had been done.
ADVANCE: Final = Script("""
local r = redis.call('HMGET', KEYS[1], 'holder', 'released_by', 'generation')
if r[2] == ARGV[2] then return tonumber(r[3]) end
if r[1] ~= ARGV[2] then return -1 end
redis.call('HSET', KEYS[1], 'holder', '', 'released_by', ARGV[2], 'stage', ARGV[3], 'queue', ARGV[4],
           'message', ARGV[5], 'published', '0', 'attempts', '0', 'due', ARGV[6])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[3], ARGV[6], ARGV[1])
return redis.call('HINCRBY', KEYS[1], 'generation', 1)
""")

# KEYS row LEASES UNPUBLISHED
# ARGV ref holder due counted
POSTPONE: Final = Script("""
local r = redis.call('HMGET', KEYS[1], 'holder', 'released_by')
if r[2] == ARGV[2] then return 1 end
if r[1] ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'holder', '', 'released_by', ARGV[2], 'published', '0', 'due', ARGV[3])
if ARGV[4] == '0' then redis.call('HINCRBY', KEYS[1], 'attempts', -1) end
redis.call('HINCRBY', KEYS[1], 'generation', 1)
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[3], ARGV[3], ARGV[1])
return 1
""")

# KEYS row done LEASES UNPUBLISHED DEADLINES open admitted throttled usage
# ARGV ref revision digest now remember [field count ...]
# What was used is counted once, because the row is removed once.
CLEAR: Final = Script(f"""{_HEAD}{_SLOTS}{_ENDED}{_FORGET}{DISBAND}
local r = redis.call('HMGET', KEYS[1], 'revision', 'queue', 'session', 'steps', 'published', 'holder')
if r[1] and r[1] ~= ARGV[2] then return false end
local _, ended = ended_revision(KEYS[2])
if tonumber(ARGV[2]) > ended - (r[1] and 1 or 0) then bury(KEYS[2], ARGV[3], ARGV[2], r[5], r[6], ARGV[5]) end
if not r[1] then return false end
redis.call('DEL', KEYS[1])
if r[4] then disband(ARGV[1], ARGV[2], r[4], ARGV[5]) end
forget(ARGV[1])
redis.call('ZREM', '{_QUEUED}' .. r[2], ARGV[1])
redis.call('SREM', KEYS[6], ARGV[1])
redis.call('SREM', KEYS[7], ARGV[1])
redis.call('ZREM', KEYS[8], ARGV[1])
for i = 6, #ARGV, 2 do redis.call('HINCRBY', KEYS[9], ARGV[i], ARGV[i + 1]) end
if #ARGV > 5 then redis.call('EXPIRE', KEYS[9], {USAGE_SECONDS}) end
if r[3] == '' then return false end
redis.call('LREM', r[3], 0, ARGV[1])
local next = head(r[3])
if not next or redis.call('HGET', '{_ROW}' .. next, 'parked') ~= '1' then return false end
redis.call('HSET', '{_ROW}' .. next, 'parked', '0', 'published', '0', 'due', ARGV[4])
redis.call('HINCRBY', '{_ROW}' .. next, 'generation', 1)
redis.call('ZADD', KEYS[4], ARGV[4], next)
redis.call('SADD', slots(next), next)
return next
""")

# KEYS admitted throttled THROTTLED UNPUBLISHED
# ARGV tenant slots due most
# Rows that were given a slot, each as its ref and its fields. A command whose answer was lost is sent again: what the
# first one released lies unpublished, and the sweeper publishes it.
RELEASE: Final = Script(f"""
local out = {{}}
for _ = 1, tonumber(ARGV[4]) do
  if ARGV[2] ~= '' and redis.call('SCARD', KEYS[1]) >= tonumber(ARGV[2]) then break end
  local ref = redis.call('ZPOPMIN', KEYS[2])[1]
  if not ref then break end
  local row = '{_ROW}' .. ref
  local r = redis.call('HMGET', row, 'throttled', 'recorded')
  if r[1] == '1' then
    redis.call('HSET', row, 'throttled', '0', 'due', ARGV[3])
    redis.call('SADD', KEYS[1], ref)
    redis.call('ZADD', KEYS[4], ARGV[3], ref)
    if r[2] == '1' then
      out[#out + 1] = ref
      out[#out + 1] = redis.call('HGETALL', row)
    end
  end
end
if redis.call('EXISTS', KEYS[2]) == 0 then redis.call('SREM', KEYS[3], ARGV[1]) end
return out
""")

# KEYS open admitted
HEAL: Final = Script(f"""
local gone = 0
for _, key in ipairs(KEYS) do
  for _, ref in ipairs(redis.call('SMEMBERS', key)) do
    if redis.call('EXISTS', '{_ROW}' .. ref) == 0 then gone = gone + redis.call('SREM', key, ref) end
  end
end
return gone
""")

# KEYS row LEASES UNPUBLISHED
# ARGV ref holder now lease-end
SEIZE: Final = Script(f"""{_FORGET}
local r = redis.call('HMGET', KEYS[1], 'digest', 'holder', 'lease_end', 'queue')
if not r[1] then
  forget(ARGV[1])
  return 0
end
if r[2] ~= ARGV[2] and r[2] ~= '' and tonumber(r[3]) > tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], 'holder', ARGV[2], 'lease_end', ARGV[4], 'parked', '0', 'throttled', '0')
redis.call('ZREM', '{_QUEUED}' .. r[4], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[1])
return 1
""")

# KEYS row LEASES UNPUBLISHED
# ARGV ref why before due
RECLAIM: Final = Script(f"""{_FORGET}
local r = redis.call('HMGET', KEYS[1], 'holder', 'lease_end', 'published', 'queue')
if not r[1] then
  forget(ARGV[1])
  return {{}}
end
local before = tonumber(ARGV[3])
local queued = '{_QUEUED}' .. r[4]
local score
if ARGV[2] == 'unpublished' then score = redis.call('ZSCORE', KEYS[3], ARGV[1])
elseif ARGV[2] == 'lost' then score = redis.call('ZSCORE', queued, ARGV[1])
else score = redis.call('ZSCORE', KEYS[2], ARGV[1]) end
if not score or tonumber(score) > before then return {{}} end
redis.call('HSET', KEYS[1], 'holder', '', 'published', '0', 'parked', '0', 'due', ARGV[4])
redis.call('HINCRBY', KEYS[1], 'generation', 1)
if ARGV[2] == 'lost' then redis.call('HINCRBY', KEYS[1], 'losses', 1) end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', queued, ARGV[1])
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1])
return redis.call('HGETALL', KEYS[1])
""")

# KEYS row
# ARGV ref now
SEEN: Final = Script(f"""
local queue = redis.call('HGET', KEYS[1], 'queue')
if not queue or not redis.call('ZSCORE', '{_QUEUED}' .. queue, ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'queued_at', ARGV[2])
redis.call('ZADD', '{_QUEUED}' .. queue, ARGV[2], ARGV[1])
return 1
""")

# KEYS unacked unacked-index waiting [waiting ...]
# ARGV now queue-count queue [queue ...] tag [tag ...]
# Takes a message for each tag, from the first queue that has one, and records who has it in the same step. A command
# whose answer was lost is sent again with the same tags, and gets the same messages.
RECEIVE: Final = Script("""
local queues = tonumber(ARGV[2])
local first = 3 + queues
local out = {}
if redis.call('HEXISTS', KEYS[1], ARGV[first]) == 1 then
  for i = first, #ARGV do
    local kept = redis.call('HGET', KEYS[1], ARGV[i])
    if kept then
      local queue, item = string.match(kept, '^([^\\n]*)\\n(.*)$')
      out[#out + 1] = ARGV[i]; out[#out + 1] = queue; out[#out + 1] = item
    end
  end
  return out
end
local tag = first
for q = 1, queues do
  local left = #ARGV - tag + 1
  if left == 0 then break end
  local items = redis.call('RPOP', KEYS[2 + q], left)
  for _, item in ipairs(items or {}) do
    local queue = ARGV[2 + q]
    redis.call('HSET', KEYS[1], ARGV[tag], queue .. '\\n' .. item)
    redis.call('ZADD', KEYS[2], ARGV[1], ARGV[tag])
    out[#out + 1] = ARGV[tag]; out[#out + 1] = queue; out[#out + 1] = item
    tag = tag + 1
  end
end
return out
""")

_RETURN: Final = f"""{_PUSH}
local function give_back(tag, at_front)
  local kept = redis.call('HGET', KEYS[1], tag)
  redis.call('HDEL', KEYS[1], tag)
  redis.call('ZREM', KEYS[2], tag)
  if not kept then return 0 end
  local queue, item = string.match(kept, '^([^\\n]*)\\n(.*)$')
  push(queue, item, at_front)
  return 1
end
"""

# KEYS unacked unacked-index
# ARGV tag [tag ...]
# To the end of its queue: nobody is held up by what this worker may not read.
GIVE_BACK: Final = Script(f"""{_RETURN}
for i = 1, #ARGV do give_back(ARGV[i], false) end
return #ARGV
""")

# KEYS unacked unacked-index
# ARGV before limit
# To the front, where it was.
RESTORE: Final = Script(f"""{_RETURN}
local restored = 0
for _, tag in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])) do
  restored = restored + give_back(tag, true)
end
return restored
""")
