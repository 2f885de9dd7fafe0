-- Library (uses clock, jobs): the workers that serve a lane: a sorted set of their names by their last sign of life, in ms. A name
-- ends with a colon and the worker's number of slots.

-- Milliseconds that a sign lasts; one comes every 5 s, so two may fail. A worker that stops takes its sign away.
local SIGN_LASTS = 15000

local function workers_key(lane)
  return key('workers:' .. lane)
end

local function give_sign(lane, name)
  redis.call('ZREMRANGEBYSCORE', workers_key(lane), '-inf', NOW - SIGN_LASTS)
  redis.call('ZADD', workers_key(lane), NOW, name)
  redis.call('PEXPIRE', workers_key(lane), SIGN_LASTS)
end

-- A sign at this time or before has lapsed.
local function lapsed()
  return '(' .. string.format('%.0f', NOW - SIGN_LASTS)
end

local function workers_of(lane)
  return redis.call('ZCOUNT', workers_key(lane), lapsed(), '+inf')
end

local function workers_in(lane)
  return redis.call('ZRANGEBYSCORE', workers_key(lane), lapsed(), '+inf')
end

-- 0: a worker of an earlier version does not say.
local function slots_in(name)
  return tonumber(string.match(name, ':(%d+)$') or '0')
end
