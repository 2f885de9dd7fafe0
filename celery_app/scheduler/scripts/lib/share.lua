-- Library (uses jobs): the share of what is handed out that a lane is guaranteed once its head has waited for long: of the
-- slots, and so of the budget.
--
-- A boosted lane earns `share` of every job that leaves, its own included, in seconds of the budget: a job costs as many as
-- the bucket that it needs most of takes to refill with its cost (dominant resource fairness, Ghodsi et al., 2011). A head
-- that the credit covers goes before the lanes above, but for the most important.

-- Jobs like its head that a lane can save up for.
local SAVED = 2

local CREDITS = key('credits')

-- lanes: of which those with `boosted` set earn; head: what leaves; seconds: of its budget.
local function share_out(lanes, head, seconds)
  for _, lane in ipairs(lanes) do
    if lane.boosted then
      local spent = lane == head.lane and head.owed and seconds or 0
      local most = SAVED * math.max(seconds, lane.most)
      lane.credit = math.min(most, math.max(0, lane.credit - spent) + lane.share * seconds)
      redis.call('HSET', CREDITS, lane.name, string.format('%.17g', lane.credit))
    end
  end
end
