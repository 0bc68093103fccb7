"""What the server does for a plugin's keys, as Lua: each of these is one step there, and nobody sees half of it.

A plugin has four keys on the server, with one hash tag, so that all of them are on one node of a cluster:

    hookline:{NAMESPACE/PLUGIN}:entries   hash: a key and its value
    hookline:{NAMESPACE/PLUGIN}:ends      sorted set: the keys that have a time limit, by its end in ms since 1970
    hookline:{NAMESPACE/PLUGIN}:keys      sorted set: all keys, in order, for lists and pages
    hookline:{NAMESPACE/PLUGIN}:initial   hash: what ``spec.kv.initial`` has written

So a count is the length of a hash, a list reads this plugin's keys alone, and to delete a plugin's keys is to delete
these four. The time is the server's, for all pods. What is over is not there for whoever asks, and is cleared by those
who write, a few entries each.
"""

from __future__ import annotations

from typing import Final

from hookline_api.abi import E_ARGUMENT, E_CAP, E_SIZE
from hookline_runtime.host.backends.valkey import Script
from hookline_runtime.host.kv import MAX_KEYS, PURGED_AT_ONCE

_PURGED_BY_THE_WAY: Final = 2
_LISTED_AT_ONCE: Final = 64
MAX_REMEMBERED: Final = 2048
"""Initial keys of one plugin; beyond that, those that are no longer in its ``initial`` are forgotten."""

_COMMON: Final = f"""
local entries, ends, names, record = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function is_over(key)
  local ending = redis.call('ZSCORE', ends, key)
  return ending and tonumber(ending) <= now
end
local function held(key)
  local value = redis.call('HGET', entries, key)
  if value and is_over(key) then return false end
  return value
end
local function remove(key)
  redis.call('HDEL', entries, key)
  redis.call('ZREM', ends, key)
  redis.call('ZREM', names, key)
end
local function purge(most)
  local gone = redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, most)
  for _, key in ipairs(gone) do remove(key) end
  return #gone > 0
end
local function put(key, value)
  if redis.call('HEXISTS', entries, key) == 0 then
    if redis.call('HLEN', entries) >= {MAX_KEYS} and not purge({PURGED_AT_ONCE}) then return false end
    redis.call('ZADD', names, 0, key)
  else
    redis.call('ZREM', ends, key)
  end
  redis.call('HSET', entries, key, value)
  return true
end
"""
_WRITES: Final = f"{_COMMON}purge({_PURGED_BY_THE_WAY})\n"

GET: Final = Script(f"{_COMMON}return held(ARGV[1])")
"""KEY: its value, or nothing."""
PUT: Final = Script(f"{_WRITES}if put(ARGV[1], ARGV[2]) then return 0 end return {E_CAP}")
"""KEY VALUE: 0 or a code. A time limit ends."""
DELETE: Final = Script(f"{_WRITES}remove(ARGV[1]) return 0")
"""KEY: 0."""
INCREMENT: Final = Script(f"""{_WRITES}
local key, by = ARGV[1], ARGV[2]
local old = held(key)
if old then
  local sign, digits = string.match(old, '^%s*([+-]?)0*(%d+)%s*$')
  if not digits or #old > 20 then return {E_ARGUMENT} end
  if sign == '+' or digits == '0' then sign = '' end
  if sign .. digits ~= old then redis.call('HSET', entries, key, sign .. digits) end
else
  remove(key)
  if not put(key, '0') then return {E_CAP} end
end
-- The sum is read as text: a number of Lua has 53 bits.
local sum = redis.pcall('HINCRBY', entries, key, by)
local total = redis.call('HGET', entries, key)
if type(sum) == 'table' or total == '-9223372036854775808' then
  if old then redis.call('HSET', entries, key, old) else remove(key) end
  return {E_ARGUMENT}
end
return total
""")
"""KEY NUMBER: the sum as text, or a code. A time limit stays."""
COMPARE_AND_SET: Final = Script(f"""{_WRITES}
local value = held(ARGV[1])
if ARGV[2] == '0' then
  if value then return 0 end
elseif value ~= ARGV[3] then
  return 0
end
if put(ARGV[1], ARGV[4]) then return 1 end
return {E_CAP}
""")
"""KEY 0|1 OLD NEW: 1, 0 where the value is another, or a code. With 0 there must be none."""
SET_TTL: Final = Script(f"""{_WRITES}
local key, ttl = ARGV[1], tonumber(ARGV[2])
if redis.call('HEXISTS', entries, key) == 0 or is_over(key) then return 0 end
if ttl > 0 then redis.call('ZADD', ends, now + ttl, key) else redis.call('ZREM', ends, key) end
return 1
""")
"""KEY MILLISECONDS: whether it is there. 0 and less take the limit off."""
LIST: Final = Script(f"""{_COMMON}
local prefix, most = ARGV[1], tonumber(ARGV[2])
local from, size, found, limited = '[' .. prefix, 0, {{}}, redis.call('ZCARD', ends) > 0
while true do
  local some = redis.call('ZRANGEBYLEX', names, from, '+', 'LIMIT', 0, {_LISTED_AT_ONCE})
  for _, key in ipairs(some) do
    if string.sub(key, 1, #prefix) ~= prefix then return found end
    if not (limited and is_over(key)) then
      size = size + #key
      if size > most then return {E_SIZE} end
      found[#found + 1] = key
    end
    from = '(' .. key
  end
  if #some < {_LISTED_AT_ONCE} then return found end
end
""")
"""PREFIX BYTES: the keys in order, or a code where they have more bytes together."""
INITIAL: Final = Script(f"""{_COMMON}
local overwrite, origin, generation = ARGV[1] == 'OnChange', ARGV[2], tonumber(ARGV[3])
local last = redis.call('HMGET', record, 'origin', 'generation')
if last[1] == origin and tonumber(last[2]) > generation then return 0 end
local due, marks, new = {{}}, {{}}, 0
for at = 4, #ARGV, 2 do
  local key, value = ARGV[at], ARGV[at + 1]
  local name, mark = 'key:' .. redis.sha1hex(key), redis.sha1hex(value)
  local known = redis.call('HGET', record, name)
  marks[name] = known
  if overwrite and known ~= mark or not overwrite and not known then
    if overwrite or not held(key) then
      due[#due + 1] = at
      marks[name] = mark
      if redis.call('HEXISTS', entries, key) == 0 then new = new + 1 end
    else
      marks[name] = '-'
    end
  end
end
while redis.call('HLEN', entries) + new > {MAX_KEYS} do
  if not purge({PURGED_AT_ONCE}) then return {E_CAP} end
  new = 0
  for _, at in ipairs(due) do
    if redis.call('HEXISTS', entries, ARGV[at]) == 0 then new = new + 1 end
  end
end
for _, at in ipairs(due) do put(ARGV[at], ARGV[at + 1]) end
if redis.call('HLEN', record) > {MAX_REMEMBERED} then redis.call('DEL', record) end
redis.call('HSET', record, 'origin', origin, 'generation', ARGV[3])
for name, mark in pairs(marks) do
  if mark then redis.call('HSET', record, name, mark) end
end
return #due
""")
"""Never|OnChange ORIGIN GENERATION (KEY VALUE)…: how many were written, all of them or none, or a code. A generation
that is older than the last one of the same origin writes nothing: while a change is rolled out, pods of both start."""
