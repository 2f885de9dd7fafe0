-- Demand: how much of each lane's backlog a free slot could begin with now, by the code that decides; nothing is taken here.
--
-- A lane without a worker is looked at as if it had one: who asks wants to know whether to start one.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2…] the lanes, as claim.lua has them
--
-- Returns for each lane, an array: how many of its models' heads wait for something other than a slot; the fraction of its jobs
-- that are of the other models; jobs per second that the budgets of these let through, '' where no limit is known. The last two as
-- texts. Jobs of one model are taken to be alike: all wait as their head does.

-- Lines of a lane that are counted; of more tenants, as many jobs are taken to be in each of the others.
local MOST_SAMPLED = 32

local lanes = read_lanes(2)

-- Jobs per second like a head that its budget lets through.
local function rate_of(head)
  local seconds = head.cost and head.budget and seconds_of(head.budget, head.cost) or 0
  return seconds > 0 and 1 / seconds or math.huge
end

local function row(lane)
  local models, held, free, all, rates, fed = 0, 0, 0, 0, {}, 0
  for _ in pairs(lane.heads) do
    models = models + 1
  end
  for model, head in pairs(lane.heads) do
    local jobs = jobs_of(lane.name, model, math.max(1, math.floor(MOST_SAMPLED / models)))
    all = all + jobs
    if head.pause or (head.wait or 0) > 0 then
      held = held + 1
    else
      local budget = head.budget and head.budget.name or ''
      free, rates[budget] = free + jobs, math.max(rates[budget] or 0, rate_of(head))
    end
  end
  for _, rate in pairs(rates) do
    fed = fed + rate
  end
  local known = next(rates) and fed < math.huge
  return {held, string.format('%.17g', all > 0 and free / all or 1), known and string.format('%.17g', fed) or ''}
end

for _, lane in ipairs(lanes) do
  lane.has_worker = true
  read_heads(lane)
end
walk(lanes, read_waiters(lanes), function(head, wait)
  head.wait = wait
  return false
end)
local rows = {}
for i, lane in ipairs(lanes) do
  rows[i] = row(lane)
end
return rows
