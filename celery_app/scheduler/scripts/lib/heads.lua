-- Library (uses jobs, controls, lines, prefixes, passing, quota, aside, budgets, workers): the jobs that are next, in the order in which
-- they may go.
--
-- The order is total, so that nobody waits for one who waits for him: the most important lane; then the heads that are owed
-- a share, by lane; then the other lanes; within a lane by turn, then by place.

-- Lanes from ARGV[first…], as claim.lua has them.
local function read_lanes(first)
  local lanes = {}
  for i = first, #ARGV, 5 do
    local set = set_of(ARGV[i])
    local lane = {name = ARGV[i], rank = #lanes + 1, floor = set.floor or tonumber(ARGV[i + 1]),
      share = set.share or tonumber(ARGV[i + 2]),
      boost_after = tonumber(ARGV[i + 3]), served = ARGV[i + 4] ~= '0',
      held = ARGV[i + 4] == '2', most = 0}
    lanes[#lanes + 1], lanes[lane.name] = lane, lane
  end
  -- The floor of a head that is owed its lane's share.
  lanes.owed_floor = math.huge
  for rank = 2, #lanes do
    lanes.owed_floor = math.min(lanes.owed_floor, lanes[rank].floor)
  end
  return lanes
end

local opened = {}

-- The terms in a text; nil where it has none: somebody else has written it, and a worker is asked for them anew.
local function terms_in(text)
  local fine, terms = pcall(cjson.decode, text or '')
  local has_all = fine and type(terms) == 'table' and type(terms.name) == 'string' and type(terms.model) == 'string'
  for _, limit in ipairs({'requests', 'input_tokens', 'output_tokens', 'calls'}) do
    has_all = has_all and type(terms[limit]) == 'number'
  end
  return has_all and terms or nil
end

-- The budget of a lane's model; nil where no worker has written down which it is.
local function budget_of(lane, model)
  local known = opened[lane .. '|' .. model]
  if known == nil then
    local terms = terms_in(redis.call('HGET', key('terms'), lane .. ':' .. model))
    known = terms and open_budget(terms) or false
    opened[lane .. '|' .. model] = known
  end
  return known or nil
end

-- A budget has changed: what is known of it under the names of its other models and lanes is read again.
local function drop_budget(budget)
  for which, other in pairs(opened) do
    if other and other ~= budget and other.name == budget.name then
      opened[which] = nil
    end
  end
end

-- What a job costs at present, or nil where it reserves nothing.
local function cost_of(budget, job)
  return budget and job.requests > 0 and estimated(budget.state, uncached(budget, job)) or nil
end

-- A head with all that the decision needs.
local function weighed(lane, model, head)
  local job = head.job
  head.lane, head.model, head.pause = lane, model, pause_of(lane.name, model)
  head.cancelled = job.batch ~= '' and redis.call('EXISTS', key('cancel:' .. job.batch)) == 1
  if job.requests > 0 and not head.cancelled then
    head.budget = budget_of(lane.name, model)
    head.unknown = not head.budget
    head.cost = cost_of(head.budget, job)
  end
  head.pause = head.pause or head.cost and cap_reached(lane, job, head.budget.terms)
  head.seconds = head.cost and seconds_of(head.budget, head.cost) or 0
  head.seconds = head.seconds > 0 and head.seconds or NOMINAL
  return head
end

-- Heads that are passed by at once.
local MOST_PASSED_BY = 64

-- Those at the front that wait for the first one with their prefix are passed, if anybody is behind.
local function next_head(lane, model)
  local head = head_of(lane.name, model)
  if head and head.job.prefix ~= '' and wait_for_first(budget_of(lane.name, model), head.job) > 0 then
    head = passing(lane.name, model, budget_of(lane.name, model)) or head
  end
  return head and weighed(lane, model, head)
end

-- Until when windows end of tenants that are set aside for nothing: theirs are over, or nothing keeps back one that stands there.
local function returns_till(head)
  if head.aside and not head.pause then
    return '+inf'
  end
  return has_caps(head.budget.terms) and ASIDE + WALL
end

-- The head of a lane's model, or nil; one that a cap of its tenant or its batch keeps back lets others pass, of which more may follow:
-- then `lane.more` is set.
local function read_head(lane, model)
  local head = next_head(lane, model)
  local till = head and head.budget and returns_till(head)
  if till and bring_back_by(lane.name, model, till) then
    head = next_head(lane, model)
  end
  for _ = 1, MOST_PASSED_BY do
    if not (head and pass_by(head)) then
      return head
    end
    head = next_head(lane, model)
  end
  lane.more = true
  return head
end

-- A process with a suspect gets no other, and works on all the same: what may pass the suspects stands beside them.
local function read_beside(lane)
  lane.beside = {}
  for model, head in pairs(lane.heads) do
    local other = is_suspect(head.job) and unsuspected(lane.name, model)
    lane.beside[model] = other and weighed(lane, model, other) or nil
  end
end

-- Note since when a head waits, in ms: once that is long, its lane is boosted.
local function boost(lane, head, since)
  lane.most = math.max(lane.most, head.seconds)
  if not lane.boosted and lane.share > 0 and lane.boost_after >= 0 and NOW - since >= lane.boost_after then
    lane.boosted, lane.credit = true, tonumber(redis.call('HGET', CREDITS, lane.name) or '0')
  end
end

local function read_heads(lane)
  lane.heads, lane.beside, lane.boosted, lane.credit = {}, {}, false, 0
  for _, model in ipairs(models_of(lane.name)) do
    local head = read_head(lane, model)
    if head then
      lane.heads[model] = head
      if not head.pause then
        boost(lane, head, head.job.submitted)
      end
    end
  end
end

local function has_worker(lane)
  if lane.has_worker == nil then
    lane.has_worker = lane.served or workers_of(lane.name) > 0
  end
  return lane.has_worker
end

local function precedes(one, other)
  if one.class ~= other.class then
    return one.class < other.class
  elseif one.lane.rank ~= other.lane.rank then
    return one.lane.rank < other.lane.rank
  elseif one.start ~= other.start then
    return one.start < other.start
  end
  return one.place < other.place
end

-- All heads in their order. What is paused, and a lane without a worker, are left out: what is left for them nobody would take.
local function in_order(lanes, waiters)
  local heads = {}
  for _, lane in ipairs(lanes) do
    for _, those in ipairs(has_worker(lane) and {lane.heads, lane.beside} or {}) do
      for _, head in pairs(those) do
        heads[#heads + 1] = not head.pause and head or nil
      end
    end
  end
  for _, waiter in ipairs(waiters) do
    heads[#heads + 1] = waiter
  end
  for _, head in ipairs(heads) do
    head.owed = head.lane.boosted and head.lane.rank > 1 and head.lane.credit >= head.seconds
    head.class = head.lane.rank == 1 and 0 or head.owed and 1 or 2
  end
  table.sort(heads, precedes)
  return heads
end

local NOTHING = {requests = 0, input_tokens = 0, output_tokens = 0, calls = 0}

-- Leave room in the budget for a head that may not go yet, or that another worker has to take. ahead: budget's key -> what is waited for.
local function leave_room(ahead, head)
  local sum = ahead[head.budget.name] or {requests = 0, input_tokens = 0, output_tokens = 0, calls = 0}
  for dimension, cost in pairs(head.cost) do
    local bucket = head.budget.buckets[dimension]
    sum[dimension] = sum[dimension] + (bucket and math.min(cost, bucket.capacity) or cost)
  end
  sum.calls = sum.calls + 1
  ahead[head.budget.name] = sum
end

-- Microseconds until a head may go, given those before it, and what is short; `head.verdict`: why it is handed out without a
-- reservation, to fail.
local function wait_of(head, lanes, ahead)
  if not head.cost then
    head.verdict = head.job and head.job.ship == ANSWERED and 'answered' or nil
    return 0, ''
  end
  local for_first = head.job and wait_for_first(head.budget, head.job) or 0
  if for_first > 0 then
    return for_first, 'prefix'
  end
  local limit = not head.slot and exceeded(head.budget, head.job, head.cost)
  if limit then
    head.verdict = string.format('large %.0f %.0f', head.cost.input_tokens, limit)
    return 0, ''
  end
  local over = not head.slot and cap_reached(head.lane, head.job, head.budget.terms) -- others have gone since it was read
  if over then
    head.lane.more, head.told = true, over.told
    return over.till > 0 and (over.till - NOW) * 1000 or SECOND, 'cap'
  end
  local floor = head.owed and math.min(head.lane.floor, lanes.owed_floor) or head.lane.floor
  local wait, short = wait_for(head.budget, head.cost, head.lane.rank, floor, ahead[head.budget.name] or NOTHING)
  if short == 'closed' and wait > 0 and head.budget.state.account == 1 and head.lane.rank == 1 and not head.slot then
    head.verdict = 'account ' .. (head.budget.state.closed_reason or '')
    return 0, ''
  end
  local day, short_of_day, told = wait_for_day(head.budget.terms, head.cost, floor)
  if day > wait then
    head.told = told
    return day, short_of_day
  end
  return wait, short
end
