-- Admit: grant a job its cost in every dimension, or say how long its lane has to wait; nothing is taken then.
--
-- KEYS[1] hash: the budget
-- KEYS[2] sorted set: its calls in flight, ticket id -> end of the lease, µs since the epoch
-- ARGV[1] string: lane of the job
-- ARGV[2] string: who asks, the same each time the job asks again
-- ARGV[3] integer: ms that the job has waited
-- ARGV[4] string: id of the ticket, never used before
-- ARGV[5] integer: ms after which the call is taken for dead
-- ARGV[6] string: model
-- ARGV[7] integer: requests
-- ARGV[8] integer: input tokens
-- ARGV[9] integer: characters, further input tokens at the ratio learned for the model
-- ARGV[10] integer: output tokens; -1: as many as the model lately produced
-- ARGV[11] integer: output tokens at most; -1: not bounded
-- ARGV[12…15] numbers: limits: requests, input tokens, output tokens per minute, calls in flight; 0: not configured
-- ARGV[16] number: floor of a job that is owed its lane's share
-- ARGV[17] integer: 1 if models share the budget that have limits of their own, else 0
-- ARGV[18] integer: 1 if all of the input tokens will count, 0 if some may be read from a cache
-- ARGV[19…] for each lane, most important first: name; floor and share, fractions; ms until it is boosted, -1: never
--
-- Returns: 1 granted or 0 denied; µs to wait; the ticket to settle with, or ''; the dimension that is short, or ''; 1 if
-- the job was the first of its lane, else 0; 1 if the wait is certain, else 0; µs until the API's `retry-after` is over; why the
-- API has shut the budget, or ''; 1 if it refuses the account, else 0; the input tokens of a job that asks for more than
-- the limit per minute, and that limit, or 0 and 0.

-- How many times larger than the limit the estimate of a text has to be, for the text to be so certainly: what a model makes
-- of this text may differ from what it made of others. The tokens that a task has counted itself are believed, as long
-- as a number makes sense.
local SURELY, MOST_COUNTED = 1.5, 2000000

-- Seconds that a waiter may come later than it was told: a bucket that is full by then has lost what came in meanwhile.
local LATE = 0.05

-- Microseconds, at most, by which waiters of one lane are told to come one after the other.
local MOST_APART = SECOND

local key, calls_key, model = KEYS[1], KEYS[2], ARGV[6]
local limits = limits_at(12)
local now = now_us()
local state, fields, asker, lanes

local function read_lanes()
  local ranked = {}
  for i = 19, #ARGV, 4 do
    local lane = {name = ARGV[i], floor = tonumber(ARGV[i + 1]), share = tonumber(ARGV[i + 2]),
      boost_after = tonumber(ARGV[i + 3])}
    ranked[#ranked + 1], ranked[lane.name] = lane, #ranked + 1
  end
  return ranked
end

local function field_names()
  local names = {'started', 'call_us', 'told:' .. ARGV[1], 'credit:' .. ARGV[1], 'credit_at:' .. ARGV[1]}
  for _, some in ipairs({BUCKETS, PACE, CONTACT, SHUT, model_fields(model)}) do
    for _, name in ipairs(some) do
      names[#names + 1] = name
    end
  end
  for _, lane in ipairs(lanes) do
    names[#names + 1] = 'place:' .. lane.name
  end
  return names
end

local function read_asker()
  local cost = {requests = tonumber(ARGV[7]), input_tokens = tonumber(ARGV[8]), characters = tonumber(ARGV[9]),
    output_tokens = tonumber(ARGV[10]), most_output_tokens = tonumber(ARGV[11])}
  local waited = tonumber(ARGV[3])
  return {lane = ARGV[1], rank = lanes[ARGV[1]], waiter = ARGV[2], waited = waited, since = now - waited * 1000,
    cost = estimated(state, model, cost)}
end

-- The level at which a bucket admits a job: its cost and its lane's floor, and what those before it wait for.
--
-- The floor gives way where the bucket is small: a level that the bucket reaches only when full would be missed by
-- every waiter that is a moment late, and one above that never comes, so the lane alone would not reach the full rate.
-- The cost never gives way, nor does the room for those before: they need no more than a full bucket and will be gone.
local function needed(bucket, job, floor, ahead)
  local cost, capacity = math.min(job.cost[bucket.dimension], bucket.capacity), bucket.capacity
  local floored = math.min(cost + floor * capacity, capacity - bucket.rate * LATE)
  return math.max(cost, floored) + ahead
end

-- Microseconds until the bucket admits a job.
local function wait_for_level(bucket, job, floor, ahead)
  local missing = needed(bucket, job, floor, ahead) - bucket.level
  return missing > ROUNDING and math.ceil(missing / bucket.rate * SECOND) or 0
end

-- Microseconds to wait, and for which dimension: the one that is short for longest.
local function wait_for(buckets, floor, ahead)
  local wait, short = wait_for_probe(state, asker.rank, now), 'closed'
  local function longer(other, dimension)
    if other > wait then
      wait, short = other, dimension
    end
  end
  for dimension, bucket in pairs(buckets) do
    if asker.cost[dimension] > 0 then
      longer(wait_for_level(bucket, asker, floor, ahead[dimension]), dimension)
    end
  end
  local most = most_calls(state, limits.calls, next(buckets), now)
  if most then
    longer(wait_for_call(state, most, in_flight(state, calls_key, now), floor, ahead.calls), 'calls')
  end
  return math.min(wait, MOST_DEBT * SECOND), short
end

local function floor_of(lane, owed)
  return owed and math.min(lane.floor, tonumber(ARGV[16])) or lane.floor
end

-- Whether a holder has stayed away although there is room for it: long before the time that it was told, a settlement has
-- raised the level, and it has not asked since.
local function is_absent(holder, buckets)
  if now - holder.asked <= LAPSE or holder.till - now <= LAPSE then
    return false
  end
  local floor, ahead = floor_of(lanes[holder.rank], holder.owed), sum_of(before(holder, state, lanes, now))
  for dimension, bucket in pairs(buckets) do
    if holder.cost[dimension] > 0 and wait_for_level(bucket, holder, floor, ahead[dimension]) > 0 then
      return false
    end
  end
  return true
end

-- Have those that are absent lose their places, if that lets the asker in; returns whether it does.
--
-- A job that was cancelled or killed would hold up its lane and those below until the time that it was told: a minute,
-- with a full bucket. A live one loses no more than the place: it is still the oldest of its lane when it comes, and it
-- has shown itself that it is not the level that it waits for. Nobody who asks when he should ever loses it, so a large
-- job is not starved.
local function give_way(holders, buckets, floor)
  local present, absent = {}, {}
  for _, holder in ipairs(holders) do
    local side = is_absent(holder, buckets) and absent or present
    side[#side + 1] = holder
  end
  if not absent[1] or wait_for(buckets, floor, sum_of(present)) > 0 then
    return false
  end
  for _, holder in ipairs(absent) do
    state['place:' .. holder.lane] = nil
  end
  return true
end

-- The limit per minute that a job alone exceeds, or nil: no waiting helps. What is cached does not count, so a prompt that
-- may be is left to the API (characters: 0 where nothing can be said of the text).
local function exceeded()
  local limit = limits.input_tokens > 0 and limits.input_tokens or state.input_tokens_limit
  local text, tokens = tonumber(ARGV[9]), asker.cost.input_tokens
  local surely = text > 0 and tokens / SURELY or tokens
  return limit and surely > limit and tokens < MOST_COUNTED and ARGV[18] == '1' and limit or nil
end

-- Whether nothing can shorten a wait: the API's own `retry-after` with no probe under way, or a rate that is known and no call in flight that may
-- be settled lower, nor anybody ahead who may leave. Settling gives no request back.
local function is_certain(short, ahead)
  if short == 'closed' then
    return not state.probe
  elseif short == 'calls' or not known_rate(state, short, limits[short]) then
    return false
  elseif short == 'requests' then
    return not state.overload_rate
  end
  return ahead[short] == 0 and in_flight(state, calls_key, now) == 0
end

-- What settling has to know, so that Redis need not: when, what was taken, and the levels after that.
local function ticket(buckets)
  local parts = {ARGV[4], text_of(now), ARGV[8] == '0' and ARGV[9] or '0'}
  for _, dimension in ipairs(DIMENSIONS) do
    parts[#parts + 1] = text_of(asker.cost[dimension])
    parts[#parts + 1] = buckets[dimension] and text_of(buckets[dimension].level) or '-'
  end
  return table.concat(parts, ':')
end

local function save(buckets)
  for _, bucket in pairs(buckets) do
    keep_bucket(state, bucket, now)
  end
  remember(key, state, fields)
end

local function grant(buckets)
  for dimension, bucket in pairs(buckets) do
    bucket.level = bucket.level - asker.cost[dimension]
  end
  count_sent(state, asker.cost.requests, now)
  if is_shut(state, now) then
    begin_probe(state, ARGV[4], now)
  end
  spend(state, asker)
  local holder = holder_of(state, asker.lane, asker.rank, now)
  if holder and holder.waiter == asker.waiter then
    state['place:' .. asker.lane] = nil
  end
  save(buckets)
  open_call(calls_key, ARGV[4], now + tonumber(ARGV[5]) * 1000, now)
  return {1, 0, ticket(buckets), '', asker.first and 1 or 0, 1, 0, '', 0, 0, 0}
end

-- Waiters that are all told the same time would all come at that time, and all but one in vain. So the holder of the
-- lane's place is told its exact time, and each of the others the next time that is free, a job's refill later.
local function told(wait, short)
  local field = 'told:' .. asker.lane
  local refill = math.max(asker.seconds * SECOND, short == 'calls' and LEAST_PAUSE or 0)
  local taken_until = (state[field] or 0) - now
  if not asker.first then
    wait = wait + math.max(0, math.min(MOST_APART, taken_until - wait))
  end
  state[field] = now + math.max(wait + refill, math.min(taken_until, wait + MOST_APART))
  return wait
end

local function deny(buckets, wait, short, ahead)
  local certain = is_certain(short, ahead)
  if asker.first then
    take_place(state, asker, wait, now)
  end
  if short == 'requests' then
    state.pressed_until = now + wait + PRESSED
  end
  wait = math.ceil(told(wait, short))
  save(buckets)
  local shut = short == 'closed'
  return {0, wait, '', short, asker.first and 1 or 0, certain and 1 or 0, shut and shut_for(state, now) or 0,
    shut and state.closed_reason or '', shut and state.account or 0, 0, 0}
end

lanes = read_lanes()
fields = field_names()
state = recall(key, fields, ARGV[17] == '1' and learned_fields(limits, model) or nil)
contact(state, now)
grow(state, now)
asker = read_asker()
local buckets = buckets_of(state, limits, now)
asker.seconds = seconds_of(asker.cost, buckets)
local lane = lanes[asker.rank]
local limit = exceeded()
if limit then
  return {0, 0, '', 'input_tokens', 0, 1, 0, '', 0, math.floor(asker.cost.input_tokens), math.floor(limit)}
end
asker.first = is_first(asker, state, now)
asker.owed = earn(state, asker, lane, now)
local floor = floor_of(lane, asker.owed)
local holders = before(asker, state, lanes, now)
local ahead = sum_of(holders)
local wait, short = wait_for(buckets, floor, ahead)
if wait > 0 and not give_way(holders, buckets, floor) then
  return deny(buckets, wait, short, ahead)
end
return grant(buckets)
