-- Library (uses draws, budgets, heads, waiters, turns): when a job that is queued will leave, if all goes on as it does.
--
-- By its budget: the bucket has to fill with what it costs and what all cost that go before it, the jobs of its lane by turns
-- and all that is queued in the lanes above. That is as fast as the limit says, less the fraction that the lanes above
-- lately drew, since their jobs of the next minutes go first, too.
--
-- By its slots: as many have to come free as jobs go before it. How fast they do, the slots that are busy now and the
-- length of a call say (Little's law, L = λ·W); the latter is in the metrics, so that is the caller's to divide.

-- Jobs of a lane's model that are read to know what they cost on average; tenants that are counted.
local MOST_READ = 16

-- What is left of a budget at least, and of slots, for a lane that others are before.
local LEAST_LEFT = 0.05

-- Milliseconds within which a free slot takes a job: one that may go and is there for longer finds none.
local TAKEN_WITHIN = 100

-- The place of a line's jobs that are read: evenly from all of it.
local function read_some(line, most)
  local jobs, number = {}, redis.call('ZCARD', line)
  most = math.min(most, number)
  for i = 0, most - 1 do
    local rank = math.floor(i * number / most)
    jobs[#jobs + 1] = read_job(redis.call('ZRANGE', line, rank, rank)[1])
  end
  return jobs
end

-- What a job of a head's lane and model costs on average, and how many there are.
local function usual(head)
  local tenants = redis.call('ZRANGE', tenants_key(head.lane.name, head.model), 0, MOST_READ - 1)
  local sum, jobs = {requests = 0, input_tokens = 0, output_tokens = 0}, 0
  for _, tenant in ipairs(tenants) do
    local line = line_key({lane = head.lane.name, model = head.model, tenant = tenant})
    for _, job in ipairs(read_some(line, math.ceil(MOST_READ / #tenants))) do
      jobs = jobs + 1
      for dimension, cost in pairs(cost_of(head.budget, job) or {}) do
        sum[dimension] = sum[dimension] + cost
      end
    end
  end
  for dimension in pairs(sum) do
    sum[dimension] = jobs > 0 and sum[dimension] / jobs or 0
  end
  return sum
end

local function usual_seconds(head)
  local seconds = head.budget and seconds_of(head.budget, usual(head)) or 0
  return seconds > 0 and seconds or NOMINAL
end

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
      local jobs = lane == head.lane and (before[model] or 0) or jobs_of(lane.name, model, MOST_READ)
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
  for _, worker in ipairs(names_of(lane.name)) do
    own[worker] = true
  end
  for i, other in ipairs(lanes) do
    local all, shared = names_of(other.name), 0
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

-- Of the jobs before one, those that wait for nothing but a slot; -1: none does for long, so slots are not what is short.
local function short_of_slots(lanes, head, job)
  local function may_go(other)
    return other.wait == 0 and not other.pause
  end
  local jobs, longest = 0, 0
  for _, lane in ipairs(lanes) do
    if lane.rank <= head.lane.rank and has_worker(lane) then
      local models, seconds = turn_takers(lane, function(other)
        return may_go(other) or other == head
      end)
      local before = lane == head.lane and jobs_before(lane, job, models, seconds) or {}
      for _, model in ipairs(models) do
        local other = lane.heads[model]
        jobs = jobs + (lane == head.lane and before[model] or jobs_of(lane.name, model, MOST_READ))
        longest = math.max(longest, may_go(other) and NOW - other.job.submitted or 0)
      end
    end
  end
  return longest > TAKEN_WITHIN and jobs or -1
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

-- For a job and the head of its lane and model: its place from 1, µs until it may leave (-1: nobody knows), the jobs that go before it
-- into slots (-1: slots are not what is short), and for each lane the busy slots whose end it, too, waits for.
local function forecast(lanes, head, job, waiters)
  local lane = head.lane
  local models, seconds = turn_takers(lane, function(other)
    local is_of_same = head.budget and other.budget and other.budget.name == head.budget.name
    return other == head or is_of_same and not other.pause
  end)
  local before, busy = jobs_before(lane, job, models, seconds), busy_beside(lanes, lane)
  local allowed, slots = until_allowed(lanes, head, job, before, waiters, busy), {}
  for rank, number in ipairs(busy) do
    slots[rank] = text_of(rank >= lane.rank and number or 0)
  end
  return 1 + math.floor(before[head.model]), allowed and math.ceil(allowed) or -1, math.floor(short_of_slots(lanes, head, job)), slots
end
