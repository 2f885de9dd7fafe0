-- Library (uses clock, state): the calls in flight, each under a lease that its process renews, so that those of a killed
-- worker do not count for long.

-- Fraction of a lane's floor that is left free of the calls in flight. A call does not come back at a steady rate, so
-- unlike a bucket's floor this one costs throughput: 0.2 x 0.5 keeps one call in ten from batch, as slots are kept.
local CALLS_FLOOR = 0.2

-- Nobody knows when a call will end, so a lane that none was left for asks again a few times within the mean time
-- between two ends. Microseconds: at least, at most, and what a call takes until that has been measured.
local ASKS_PER_END, LEAST_PAUSE, MOST_PAUSE, USUAL_CALL = 5, 10000, SECOND, SECOND

-- While nothing is known about an API, not one limit of any kind, calls in flight start with this many and double each second, so that a fleet's
-- first burst does not hit a limit a hundred times before the first answer has told it. Over after 10 s.
local FIRST_CALLS, START = 8, 10

-- Microseconds for which a call whose lease is over is kept: its process may have been cut off, and settles it later.
local KEPT_CALLS = 3600 * SECOND

-- Microseconds without a word from anybody, after which Redis itself has been away: renewals come every 5 s while there
-- are calls. All leases are over then although the calls may go on, so until every process has had the time to renew
-- its own, those count that were alive at the last word.
local AWAY, RETURN = 10 * SECOND, 10 * SECOND

local CONTACT = {'contact_at', 'lost_at', 'found_at'}

-- Note that somebody is there, to the second.
local function contact(state, now)
  local last = state.contact_at or 0
  if last > 0 and now - last > AWAY then
    state.lost_at, state.found_at = last, now
  end
  if math.abs(now - last) >= SECOND then
    state.contact_at = now
  end
end

local function in_flight(state, key, now)
  local returning = state.found_at and now - state.found_at < RETURN
  return redis.call('ZCOUNT', key, text_of(returning and state.lost_at or now), '+inf')
end

local function open_call(key, id, until_us, now)
  redis.call('ZADD', key, text_of(until_us), id)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. text_of(now - KEPT_CALLS))
  redis.call('EXPIRE', key, KEPT)
end

-- Most calls in flight now, or nil. known: whether there is any limit to go by.
local function most_calls(state, configured, known, now)
  local most = configured > 0 and configured or nil
  state.started = state.started or now
  local age = math.max(0, now - state.started) / SECOND
  if known or age > START then
    return most
  end
  local start = math.floor(FIRST_CALLS * 2 ^ age)
  return most and math.min(most, start) or start
end

-- Microseconds until the asker may have its call; 0: now.
local function wait_for_call(state, most, open, floor, ahead)
  local floor_calls = math.min(most - 1, math.floor(most * floor * CALLS_FLOOR + 0.5))
  local missing = open + 1 + floor_calls + ahead - most
  if missing <= 0 then
    return 0
  end
  return math.max(LEAST_PAUSE, math.min(MOST_PAUSE, missing * (state.call_us or USUAL_CALL) / most / ASKS_PER_END))
end
