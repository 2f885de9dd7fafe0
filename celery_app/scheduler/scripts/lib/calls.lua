-- Library (uses clock, state): the calls in flight. They are the leases of a budget's jobs, so that those of a killed worker do
-- not count for longer than its jobs are held.

-- Fraction of a lane's floor that is left free of the calls in flight. A call does not come back at a steady rate, so
-- unlike a bucket's floor this one costs throughput: 0.2 x 0.5 keeps one call in ten from batch, as slots are kept.
local CALLS_FLOOR = 0.2

-- Nobody knows when a call will end; when one does, the lanes' wakeups are sent. Microseconds after which to look all the
-- same: at least, at most, and what a call takes until that has been measured.
local LOOKS_PER_END, LEAST_PAUSE, MOST_PAUSE, USUAL_CALL = 5, 10000, SECOND, SECOND

-- While nothing is known about an API, not one limit of any kind, calls in flight start with this many and double each second, so that a fleet's
-- first burst does not hit a limit a hundred times before the first answer has told it. Over after 10 s.
local FIRST_CALLS, START = 8, 10

local function in_flight(calls)
  return redis.call('SCARD', calls)
end

-- Most calls in flight now, or nil. known: whether there is any limit to go by.
local function most_calls(state, configured, known)
  local most = configured > 0 and configured or nil
  state.started = state.started or NOW_US
  local age = math.max(0, NOW_US - state.started) / SECOND
  if known or age > START then
    return most
  end
  local start = math.floor(FIRST_CALLS * 2 ^ age)
  return most and math.min(most, start) or start
end

-- Microseconds until there is room for a call; 0: now.
local function wait_for_call(state, most, open, floor, ahead)
  local floor_calls = math.min(most - 1, math.floor(most * floor * CALLS_FLOOR + 0.5))
  local missing = open + 1 + floor_calls + ahead - most
  if missing <= 0 then
    return 0
  end
  return math.max(LEAST_PAUSE, math.min(MOST_PAUSE, missing * (state.call_us or USUAL_CALL) / most / LOOKS_PER_END))
end
