-- Library (uses clock, jobs, controls, state, bucket, pace, model, calls, shut, draws): the budget that a job draws on, and whether it has room.
--
-- Which budget that is, and its limits, the workers have written down for each lane and model (terms), and operators may have
-- changed: for all at once, so whatever terms a worker brings along are taken with that. What a job costs is estimated anew each time, by what its model lately used.

-- How many times larger than the limit the estimate of a text has to be, for the text to be so certainly: what a model makes
-- of this text may differ from what it made of others. The tokens that a task has counted itself are believed, as long
-- as a number makes sense.
local SURELY = 1.5

-- Seconds that somebody may come later than he was told: a bucket that is full by then has lost what came in meanwhile.
local LATE = 0.05

-- What all models of a budget share, and what is known of each.
local SHARED = {'started', 'call_us', 'drawn'}
local OF_MODEL = {'tokens', 'characters', 'output', 'ok_at', 'fresh_refusal_at', 'first_us'}

local function append(names, more)
  for _, name in ipairs(more) do
    names[#names + 1] = name
  end
end

-- key of the budget's hash -> fields, key of its model's hash -> fields. Models that share a budget share what is configured
-- for all of them; the API's own limits are "separate for each model" (platform.claude.com, rate limits).
local function homes_of(name, limits, model, mixed)
  local shared, own = {}, {}
  append(shared, SHARED)
  append(own, OF_MODEL)
  append(shared, SHUT)
  for _, dimension in ipairs(DIMENSIONS) do
    local home = mixed and limits[dimension] == 0 and own or shared
    append(home, {dimension .. '_level', dimension .. '_at', dimension .. '_limit'})
  end
  append(mixed and limits.requests == 0 and own or shared, PACE)
  return {[name] = shared, [name .. ':model:' .. model] = own} -- a model may be called as anything else that is kept there
end

-- A budget for a model. terms: name, model, requests, input_tokens, output_tokens, calls (limits per minute and in flight; 0:
-- not configured), mixed, family, pattern (of the
-- environment, that names its models; '': none does), sharers (names of lanes).
local function open_budget(terms)
  terms = terms_in_force(terms)
  local name = key('budget:{' .. terms.name .. '}')
  local budget = {name = name, calls = name .. ':calls', terms = terms}
  budget.state = recall(homes_of(name, terms, terms.model, terms.mixed))
  grow(budget.state)
  budget.buckets = buckets_of(budget.state, terms)
  return budget
end

local function save_budget(budget)
  for _, bucket in pairs(budget.buckets) do
    keep_bucket(budget.state, bucket)
  end
  remember(budget.state)
end

-- Microseconds until the bucket has room for a cost above a floor and what others wait for.
--
-- The floor gives way where the bucket is small: a level that the bucket reaches only when full would be missed by
-- whoever is a moment late, and one above that never comes, so the lane alone would not reach the full rate.
-- The cost never gives way, nor does the room for those before: they need no more than a full bucket and will be gone.
local function wait_for_level(bucket, cost, floor, ahead)
  cost = math.min(cost, bucket.capacity)
  local floored = math.min(cost + floor * bucket.capacity, bucket.capacity - bucket.rate * LATE)
  local missing = math.max(cost, floored) + ahead - bucket.level
  return missing > ROUNDING and math.ceil(missing / bucket.rate * SECOND) or 0
end

-- Microseconds until a cost may be reserved, and what is short: a dimension, 'calls', or 'closed'.
-- rank: of the lane, 1 for the most important; ahead: dimension -> what those before wait for, and calls.
local function wait_for(budget, cost, rank, floor, ahead)
  local wait, short = wait_for_probe(budget.state, rank), 'closed'
  for dimension, bucket in pairs(budget.buckets) do
    local other = cost[dimension] > 0 and wait_for_level(bucket, cost[dimension], floor, ahead[dimension]) or 0
    if other > wait then
      wait, short = other, dimension
    end
  end
  local most = most_calls(budget.state, budget.terms.calls, next(budget.buckets))
  local other = most and wait_for_call(budget.state, most, in_flight(budget.calls), floor, ahead.calls) or 0
  if other > wait then
    wait, short = other, 'calls'
  end
  return math.min(wait, MOST_DEBT * SECOND), short
end

-- The limit per minute that a job alone exceeds, or nil: no waiting helps. What is cached does not count, so a prompt that
-- may be is left to the API (characters: 0 where nothing can be said of the text).
local function exceeded(budget, job, cost)
  local limit = budget.terms.input_tokens > 0 and budget.terms.input_tokens or budget.state.input_tokens_limit
  local tokens = cost.input_tokens
  local surely = job.characters > 0 and tokens / SURELY or tokens
  return limit and surely > limit and tokens < MOST_TOKENS and job.whole == 1 and limit or nil
end

-- Seconds of the budget that a cost takes; 0 where there is no limit.
local function seconds_of(budget, cost)
  local most = 0
  for dimension, bucket in pairs(budget.buckets) do
    most = math.max(most, cost[dimension] / bucket.rate)
  end
  return most
end

-- Characters of a prompt that is text alone: an image's tokens, which come as a number, say nothing about text.
local function text_alone(job)
  return job.input_tokens == 0 and job.characters or 0
end

-- What settling has to know, so that Redis need not: when, the characters of text, what was taken of each dimension and the
-- level after that ("-" where there is no limit), and the id of the reservation. Behind the characters, what was taken of the quotas.
local function ticket_of(budget, cost, characters, quotas, id)
  local parts = {text_of(NOW_US), text_of(characters) .. quotas}
  for _, dimension in ipairs(DIMENSIONS) do
    parts[#parts + 1] = text_of(cost[dimension])
    parts[#parts + 1] = budget.buckets[dimension] and text_of(budget.buckets[dimension].level) or '-'
  end
  parts[#parts + 1] = id
  return table.concat(parts, ' ')
end

-- Take a job's cost out of the budget, and out of all that it counts for; id: of the reservation. Returns its ticket.
local function reserve(budget, lane, job, cost, id)
  for dimension, bucket in pairs(budget.buckets) do
    bucket.level = bucket.level - cost[dimension]
  end
  count_sent(budget.state, cost.requests)
  note_drawn(budget.state, lane.rank, seconds_of(budget, cost))
  if is_shut(budget.state) then
    begin_probe(budget.state)
  end
  local ticket = ticket_of(budget, cost, text_alone(job), charge(lane, job, budget.terms, cost), id)
  save_budget(budget)
  redis.call('SADD', budget.calls, id)
  redis.call('EXPIRE', budget.calls, KEPT)
  return ticket
end
