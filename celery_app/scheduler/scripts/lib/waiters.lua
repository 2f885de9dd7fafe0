-- Library (uses clock, heads): calls that wait in a slot. They stand in the order like heads, but nobody is handed them: they ask
-- again themselves.
--
-- Those of a lane and a budget are one queue: a sorted set by place, and a hash of id -> packed model, cost, seconds of the
-- budget, since when they wait and when they lapse (ms). However many there are, the first of them are read: all behind wait for the
-- same, and each is in the order when it asks itself.

-- Milliseconds after which a call has gone that did not ask again; it does within a second, whatever it was told.
local ASKS_WITHIN = 2000

-- Calls of a queue, and queues, that are looked at.
local MOST_WAITERS, MOST_QUEUES = 32, 32

-- Sorted set: "<lane>|<key of the budget>" by when the last of its calls lapses.
local WAITING = key('waiters')

local function waiter_keys(queue)
  return key('waiters:' .. queue), key('waiters:' .. queue .. ':facts')
end

local function queue_of(lane, budget)
  return lane.name .. '|' .. budget.name
end

-- What is known of a call that has asked before, or nil.
local function read_waiter(queue, id)
  local _, facts = waiter_keys(queue)
  local text = redis.call('HGET', facts, id)
  return text and cmsgpack.unpack(text)
end

local function drop_waiter(queue, id)
  local places, facts = waiter_keys(queue)
  redis.call('ZREM', places, id)
  redis.call('HDEL', facts, id)
end

-- It will ask again. waiter: model, cost, seconds, since, place.
local function keep_waiter(queue, id, waiter)
  local places, facts = waiter_keys(queue)
  waiter.till = NOW + ASKS_WITHIN
  redis.call('HSET', facts, id, cmsgpack.pack(waiter))
  redis.call('ZADD', places, waiter.place, id)
  redis.call('PEXPIRE', facts, ASKS_WITHIN)
  redis.call('PEXPIRE', places, ASKS_WITHIN)
  redis.call('ZREMRANGEBYSCORE', WAITING, '-inf', NOW)
  redis.call('ZADD', WAITING, waiter.till, queue)
end

-- A queue's first calls, as heads; those whose time is over have lapsed.
local function read_queue(queue, lane, waiters)
  for _, id in ipairs(redis.call('ZRANGE', (waiter_keys(queue)), 0, MOST_WAITERS - 1)) do
    local waiter = read_waiter(queue, id)
    if waiter and waiter.till >= NOW then
      waiter.id, waiter.lane, waiter.start, waiter.slot = id, lane, 0, true
      waiters[#waiters + 1] = waiter
      boost(lane, waiter, waiter.since)
    else
      drop_waiter(queue, id)
    end
  end
end

local function read_waiters(lanes)
  local waiters = {}
  for _, queue in ipairs(redis.call('ZRANGEBYSCORE', WAITING, NOW, '+inf', 'LIMIT', 0, MOST_QUEUES)) do
    local lane = lanes[string.match(queue, '^[^|]*')]
    if lane then
      read_queue(queue, lane, waiters)
    end
  end
  return waiters
end
