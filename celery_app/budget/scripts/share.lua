-- Library (uses clock): the share of the budget that a lane is guaranteed once its jobs have waited for long.
--
-- A boosted lane earns credit, in seconds of the whole budget: `share` of every second. A job costs as many seconds as
-- the bucket that it needs most of takes to refill with its cost (dominant resource fairness, Ghodsi et al., 2011).
-- A job that the credit covers is owed its admission: the lanes above, but for the most important, leave it room.

-- Seconds of earnings that a lane can save beyond what its job costs: what it earns while it waits for the bucket.
local SAVED = 5

-- Microseconds without a job that asks, after which a lane earns nothing any more. Long, because little can be saved.
local IDLE = 30 * SECOND

-- Seconds of the budget that a cost takes; 0 where there is no limit.
local function seconds_of(cost, buckets)
  local most = 0
  for dimension, bucket in pairs(buckets) do
    most = math.max(most, cost[dimension] / bucket.rate)
  end
  return most
end

-- Earn what is due to a lane whose first job has waited for long; says whether that job is owed its admission.
-- asker.seconds: what it costs. Only the first job counts: a small one behind it must not cap what it has saved.
local function earn(state, asker, lane, now)
  if lane.share == 0 or lane.boost_after < 0 or asker.waited < lane.boost_after or not asker.first then
    return false
  end
  local credit_field, at_field = 'credit:' .. lane.name, 'credit_at:' .. lane.name
  local elapsed = now - (state[at_field] or now)
  local earned = elapsed >= 0 and elapsed <= IDLE and lane.share * elapsed / SECOND or 0
  local credit = math.min(asker.seconds + lane.share * SAVED, (state[credit_field] or 0) + earned)
  state[credit_field], state[at_field] = credit, now
  asker.boosted = true
  return credit >= asker.seconds
end

local function spend(state, asker)
  if asker.boosted then
    local field = 'credit:' .. asker.lane
    state[field] = math.max(0, state[field] - asker.seconds)
  end
end
