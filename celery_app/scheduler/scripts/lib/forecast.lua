-- Library (uses draws, budgets, heads, waiters, turns, usual): when a job that is queued will leave, if all goes on as it does.
--
-- By its budget: the bucket has to fill with what it costs and what all cost that go before it, the jobs of its lane by turns
-- and all that is queued in the lanes above. That is as fast as the limit says, less the fraction that the lanes above
-- lately drew, since their jobs of the next minutes go first, too.
--
-- By its slots: as many have to come free as jobs go before it. They do at Σ Lᵢ/Sᵢ a second, where Lᵢ are busy for lane i and a
-- call of it takes Sᵢ seconds (Little's law); those that end for the lanes above are theirs again.
--
-- While it waits, other tenants' jobs come that have their turns before it: so the wait is reckoned again, with those.

-- What is left of a budget at least, and of slots, for a lane that others are before.
local LEAST_LEFT = 0.05

-- Times that the wait is reckoned.
local ROUNDS = 5

-- Milliseconds within which a free slot takes a job: one that may go and is there for longer finds none.
local TAKEN_WITHIN = 100

-- Heads of a lane for which `fits` holds, by model; and the seconds of a job of each.
local function turn_takers(lane, fits)
  local models, seconds = {}, {}
  for model, head in pairs(lane.heads) do
    if fits(head) then
      models[#models + 1], seconds[model] = model, usual_seconds(head)
    end
  end
  return models, seconds
end

local function add_need(ahead, budget, cost, jobs)
  for dimension, bucket in pairs(budget.buckets) do
    ahead[dimension] = ahead[dimension] + jobs * math.min(cost[dimension], bucket.capacity)
  end
  ahead.calls = ahead.calls + jobs
end

-- What all that goes before a job takes of its budget. before: model -> jobs of its own lane.
local function need_before(lanes, head, waiters, before)
  local ahead = {requests = 0, input_tokens = 0, output_tokens = 0, calls = 0}
  for _, lane in ipairs(lanes) do
    for model, other in pairs(lane.rank <= head.lane.rank and has_worker(lane) and lane.heads or {}) do
      local jobs = lane == head.lane and (before[model] or 0) or number_behind(other)
      if other.budget and other.budget.name == head.budget.name and not other.pause and jobs > 0 then
        add_need(ahead, other.budget, usual(other), jobs)
      end
    end
  end
  for _, waiter in ipairs(waiters) do
    if waiter.budget and waiter.budget.name == head.budget.name and waiter.lane.rank <= head.lane.rank then
      add_need(ahead, waiter.budget, waiter.cost, 1)
    end
  end
  return ahead
end

-- The fraction of its budget that a lane gets, once it waits for it.
local function left_for(lanes, head)
  local lane, left = head.lane, 1
  for _, other in ipairs(lanes) do
    if other.rank < lane.rank then
      left = left - drawn_by(head.budget.state, other.rank)
    elseif other.rank > lane.rank and other.boosted and lane.rank > 1 then
      left = left - other.share
    end
  end
  return math.max(left, lane.share, LEAST_LEFT)
end

-- lane -> slots that are busy for it, as far as workers that serve `lane` have them.
local function busy_beside(lanes, lane)
  local busy, own = {}, {}
  for _, worker in ipairs(workers_in(lane.name)) do
    own[worker] = true
  end
  for i, other in ipairs(lanes) do
    local all, shared = workers_in(other.name), 0
    for _, worker in ipairs(all) do
      shared = shared + (own[worker] and 1 or 0)
    end
    busy[i] = #all > 0 and number_of(other.name, 'held') * shared / #all or 0
  end
  return busy
end

-- The fraction of the busy slots that come free for a lane and those below: the lanes above take theirs again.
local function slots_left(lane, busy)
  local all, left = 0, 0
  for rank, slots in ipairs(busy) do
    all, left = all + slots, left + (rank >= lane.rank and slots or 0)
  end
  return all > 0 and math.max(left / all, LEAST_LEFT) or 1
end

-- Microseconds until the calls in flight have room for a job, as fast as they end.
local function until_call(head, ahead, busy)
  local budget = head.budget
  local most = most_calls(budget.state, budget.terms.calls, next(budget.buckets))
  local missing = most and in_flight(budget.calls) + 1 + ahead.calls - most or 0
  return missing > 0 and missing * (budget.state.call_us or USUAL_CALL) / most / slots_left(head.lane, busy) or 0
end

-- Microseconds until its budget has room for a job; nil: nobody knows. opens: until its model, or the API, is open again.
local function until_budget(lanes, head, cost, ahead, busy, opens)
  local left, longest = left_for(lanes, head), 0
  for dimension, bucket in pairs(head.budget.buckets) do
    local then_there = {rate = bucket.rate, capacity = bucket.capacity,
      level = math.min(bucket.capacity, bucket.level + opens / SECOND * bucket.rate)}
    if cost[dimension] > 0 then
      longest = math.max(longest, wait_for_level(then_there, cost[dimension], head.lane.floor, ahead[dimension]))
    end
  end
  return opens + math.max(longest / left, until_call(head, ahead, busy))
end

-- Microseconds until a job may leave, as far as its budget and those who open things tell; nil: nobody knows.
-- before: model -> jobs of its lane that go before it.
local function until_allowed(lanes, head, job, before, waiters, busy)
  local state, wait = head.budget and head.budget.state, head.wait or 0
  if head.pause and head.pause.till == 0 then
    return nil
  elseif not head.cost then
    return wait
  elseif is_shut(state) and before[head.model] == 0 and not head.pause then
    return wait -- it is the next probe
  elseif state.account == 1 then
    return nil
  end
  local opens = math.max(head.pause and wait or 0, shut_for(state))
  local cost = cost_of(head.budget, job) or head.cost
  return math.max(wait, until_budget(lanes, head, cost, need_before(lanes, head, waiters, before), busy, opens))
end

local function may_go(head)
  return head.wait == 0 and not head.pause
end

-- The models of a lane whose jobs go into slots before a job's own, of a lane and model.
local function free_models(lane, own)
  return turn_takers(lane, function(head)
    return may_go(head) or head == own
  end)
end

-- Whether slots are short: a job of this lane or one above may go, and no slot has taken it.
local function are_slots_short(lanes, lane)
  for _, other in ipairs(lanes) do
    for _, head in pairs(other.rank <= lane.rank and has_worker(other) and other.heads or {}) do
      if may_go(head) and NOW - head.job.submitted > TAKEN_WITHIN then
        return true
      end
    end
  end
  return false
end

-- Microseconds until a slot is free for a job, as fast as they come free; nil: none is busy. lengths: seconds of a call, by lane;
-- before: model -> jobs of its own lane.
local function until_slot(lanes, lane, before, busy, lengths)
  local jobs, free = 1, 0
  for rank, other in ipairs(lanes) do
    free = free + (rank >= lane.rank and busy[rank] / lengths[rank] or 0)
    for model, head in pairs(rank <= lane.rank and has_worker(other) and other.heads or {}) do
      jobs = jobs + (other == lane and (before[model] or 0) or other ~= lane and may_go(head) and number_behind(head) or 0)
    end
  end
  return free > 0 and jobs / free * SECOND or nil
end

-- Whether the jobs of a head take turns with those of another: they draw on the same budget.
local function shares_budget(head, other)
  return head == other or head.budget and other.budget and other.budget.name == head.budget.name and not other.pause
end

-- For a job and the head of its lane and model: its place from 1, and µs until it leaves; -1: nobody knows.
local function forecast(lanes, head, job, waiters, lengths)
  share_reads(lanes)
  local lane, busy, wait = head.lane, busy_beside(lanes, head.lane), 0
  local by_budget = jobs_before(lane, job, turn_takers(lane, function(other)
    return shares_budget(head, other)
  end))
  local by_slot = are_slots_short(lanes, lane) and jobs_before(lane, job, free_models(lane, head))
  local place = 1 + math.floor(by_budget(0)[head.model])
  for _ = 1, ROUNDS do
    local allowed = until_allowed(lanes, head, job, by_budget(wait / SECOND), waiters, busy)
    local slot = by_slot and until_slot(lanes, lane, by_slot(wait / SECOND), busy, lengths) or not by_slot and 0
    if not (allowed and slot) then
      return place, -1
    end
    wait = math.max(allowed, slot)
  end
  return place, math.ceil(wait)
end
