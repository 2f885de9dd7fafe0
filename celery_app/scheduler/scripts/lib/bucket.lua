-- Library (uses clock, state, pace): the token buckets of one budget.
--
-- A bucket fills at `rate` units per second up to `capacity`, and every call takes its cost out of it. A cost above
-- the capacity drives the level below zero, and later calls wait for that.

local DIMENSIONS = {'requests', 'input_tokens', 'output_tokens'}

-- Fraction of a limit that is used: calls reach the API a little closer together than they were admitted.
local HEADROOM = 0.98

-- Seconds of a limit that can be saved up. "60 RPM may be enforced as 1 request per second" (platform.claude.com, rate
-- limits); tokens: a prompt of a quarter of the limit per minute is admitted at all.
local BURST = {requests = 1, input_tokens = 15, output_tokens = 15}

-- Seconds of a limit that a bucket owes at most, and that anybody is told to wait: an hour, as for `retry-after`.
-- Whatever nonsense a level came from, the budget recovers from it by itself.
local MOST_DEBT = 3600

-- A level this far below what is needed is rounding, not want.
local ROUNDING = 1e-6

-- Units per second of a limit that is configured (per minute; 0: not) or was learned from headers; nil: nobody knows.
local function known_rate(state, dimension, configured)
  local limit = configured > 0 and configured or state[dimension .. '_limit']
  return limit and limit / 60 * HEADROOM
end

-- The bucket of a dimension as it is now; nil where there is no limit.
local function bucket_of(state, dimension, configured)
  local rate = known_rate(state, dimension, configured)
  if dimension == 'requests' then
    rate = paced(state, rate)
  end
  if not rate then
    return nil
  end
  local capacity = math.max(1, rate * BURST[dimension])
  local level = state[dimension .. '_level']
  if level then
    local elapsed = math.max(0, NOW_US - state[dimension .. '_at']) / SECOND
    level = math.min(capacity, math.max(-MOST_DEBT * rate, level) + elapsed * rate)
  end
  return {dimension = dimension, rate = rate, capacity = capacity, level = level or capacity}
end

-- All buckets; limits: dimension -> configured limit per minute, 0: none.
local function buckets_of(state, limits)
  local buckets = {}
  for _, dimension in ipairs(DIMENSIONS) do
    buckets[dimension] = bucket_of(state, dimension, limits[dimension])
  end
  return buckets
end

local function keep_bucket(state, bucket)
  state[bucket.dimension .. '_level'], state[bucket.dimension .. '_at'] = bucket.level, NOW_US
end
