-- Settle: replace the estimate by what a call really used, and learn from its answer.
--
-- A ticket is settled once; again, only what closes the budget is heard. A lease that is over does not matter: the call
-- ends now. A call that has just begun to answer can be heard before it is settled: its headers are all that counts then.
--
-- KEYS[1] hash: the budget
-- KEYS[2] sorted set: its calls in flight
-- KEYS[3] hash: the budgets that the API has shut, "lane|family" -> "0 or 1 (the account is refused)", µs since the epoch at
--   which that is over, and why, with a space between
-- ARGV[1] string: the ticket
-- ARGV[2] string: answered, limited (429), overloaded (529, no connection), refused (the account), failed, unsent, or begun
-- ARGV[3] integer: input tokens that count; -1: not known
-- ARGV[4] integer: output tokens; -1: not known
-- ARGV[5] integer: ms for which the API wants to be left alone; -1: it did not say
-- ARGV[6…11] integers: limit per minute and what remains of it, of requests, input tokens, output tokens; -1: not said
-- ARGV[12…15] numbers: limits: requests, input tokens, output tokens per minute, calls in flight; 0: not configured
-- ARGV[16] string: model
-- ARGV[17] integer: 1 if models share the budget that have limits of their own, else 0
--
-- ARGV[18] string: why the API refused the call, or ''
-- ARGV[19] integer: µs since the epoch at which the job's last call left that was limited or overloaded; 0: none was
-- ARGV[20] string: family of the models; ARGV[21…] strings: the lanes that draw on this budget
--
-- Returns four numbers, each 1 or 0: whether the ticket was open; whether a refusal is a verdict on this job alone; whether
-- the budget was shut by this; whether it was opened.

-- "Rounded to the nearest thousand" (platform.claude.com, rate limits): there may be this much more.
local ROUNDED = {requests = 0, input_tokens = 500, output_tokens = 500}

-- Capacities below zero to which a settlement lowers a level at most. The API lets no call through that is larger than a
-- minute of its limit, and that is four capacities of tokens: what goes further is nonsense, or the sum of many calls,
-- and of that the API's own `remaining` and 429s tell in time.
local MOST_SETTLED = 4

local key, calls_key, outcome, model = KEYS[1], KEYS[2], ARGV[2], ARGV[16]
local used = {input_tokens = tonumber(ARGV[3]), output_tokens = tonumber(ARGV[4])}
local retry_after, limits = tonumber(ARGV[5]), limits_at(12)
local reason, refused_at = ARGV[18], tonumber(ARGV[19])

-- When the newest call left that was answered, and the newest of a job never refused before that was refused: of a model.
local OK_AT, FRESH_AT = 'ok_at:' .. model, 'fresh_refusal_at:' .. model

local now = now_us()

-- id, sent_at, characters; taken and left: dimension -> units (left: nil where there was no bucket).
local function read_ticket(text)
  local parts = {}
  for part in string.gmatch(text, '[^:]+') do
    parts[#parts + 1] = part
  end
  local read = {id = parts[1], sent_at = tonumber(parts[2]), characters = tonumber(parts[3]), taken = {}, left = {}}
  for i, dimension in ipairs(DIMENSIONS) do
    read.taken[dimension], read.left[dimension] = tonumber(parts[2 + 2 * i]), tonumber(parts[3 + 2 * i])
  end
  return read
end

local function field_names()
  local names = {'call_us', OK_AT, FRESH_AT}
  for _, some in ipairs({BUCKETS, PACE, CONTACT, SHUT, model_fields(model)}) do
    for _, name in ipairs(some) do
      names[#names + 1] = name
    end
  end
  return names
end

local ticket = read_ticket(ARGV[1])
local fields = field_names()
local state = recall(key, fields, ARGV[17] == '1' and learned_fields(limits, model) or nil)
contact(state, now)

-- What the call really took. A request that left counts, whatever came of it. A refused call has no tokens; what one
-- that failed in another way has used, nobody says, so its estimate stands.
local function really_taken(dimension)
  if outcome == 'unsent' then
    return 0
  elseif dimension == 'requests' then
    return ticket.taken.requests
  elseif used[dimension] >= 0 then
    return used[dimension]
  elseif outcome == 'limited' or outcome == 'overloaded' or outcome == 'refused' then
    return 0
  end
  return ticket.taken[dimension]
end

local function correct_estimates(buckets)
  for dimension, bucket in pairs(buckets) do
    local too_much = ticket.taken[dimension] - really_taken(dimension)
    local least = math.min(bucket.level, -MOST_SETTLED * bucket.capacity)
    bucket.level = math.min(bucket.capacity, math.max(least, bucket.level + too_much))
    ticket.left[dimension] = ticket.left[dimension] and ticket.left[dimension] + too_much
  end
end

local function said(i)
  local value = tonumber(ARGV[i])
  return value >= 0 and value or nil
end

-- Learn the limits that the headers tell; returns whether they told any.
local function learn_limits()
  local told = false
  for i, dimension in ipairs(DIMENSIONS) do
    local limit = said(4 + 2 * i)
    if limit and limit > 0 then
      told, state[dimension .. '_limit'] = true, limit
    end
  end
  return told
end

-- Lower the levels to what the API says remains, never raise them: raising would forget calls that it has not seen.
--
-- When the API counted, nobody knows: between the call's admission and now. The level of either moment knows the calls
-- admitted until then, so only what is less than both is news: somebody else uses the limit, or we have miscounted.
-- What calls in flight have yet to produce is not taken off `remaining`: of long answers that is more than a bucket
-- holds, and the level has paid for it already.
local function heed_remaining(buckets, open_calls)
  for i, dimension in ipairs(DIMENSIONS) do
    local bucket, remaining = buckets[dimension], said(5 + 2 * i)
    if bucket and remaining then
      remaining = remaining + ROUNDED[dimension]
      if state[dimension .. '_level'] then
        local news = remaining - math.min(bucket.level, ticket.left[dimension] or bucket.level)
        bucket.level = bucket.level + math.min(0, news)
      else
        -- A limit that was not known: the calls in flight have paid nothing yet, and the API may not have seen them.
        bucket.level = math.min(bucket.level, remaining - open_calls * really_taken(dimension))
      end
    end
  end
end

-- A refusal: where the limit is known, our level was too high; where it is not, our rate was.
local function heed_refusal(told, request_bucket)
  if outcome == 'limited' then
    local known = told or known_rate(state, 'requests', limits.requests)
    return known or cut(state, ticket.sent_at, now)
  end
  return outcome == 'overloaded' and slow_down(state, request_bucket and request_bucket.rate, ticket.sent_at, now)
end

-- Whether a refusal is this job's own: it was refused before, others have been answered since, and nobody else was refused
-- for the first time. Its prompt may be one that the key may never send; that is nobody else's business.
local function is_own()
  if outcome ~= 'limited' and outcome ~= 'overloaded' then
    return false
  elseif refused_at == 0 then
    state[FRESH_AT] = math.max(state[FRESH_AT] or 0, ticket.sent_at)
    return false
  end
  return (state[OK_AT] or 0) > refused_at and (state[FRESH_AT] or 0) <= refused_at
end

local function show_shut()
  local value = string.format('%d %.0f %s', state.account or 0, state.closed_until or 0, state.closed_reason or '')
  for i = 21, #ARGV do
    redis.call('HSET', KEYS[3], ARGV[i] .. '|' .. ARGV[20], value)
  end
  redis.call('EXPIRE', KEYS[3], KEPT)
end

local function show_open()
  if redis.call('EXISTS', KEYS[3]) == 1 then
    for i = 21, #ARGV do
      redis.call('HDEL', KEYS[3], ARGV[i] .. '|' .. ARGV[20])
    end
  end
end

-- Returns whether the budget was open until now.
local function close()
  local news = false
  if outcome == 'refused' then
    news = shut_account(state, reason, now)
  elseif retry_after > 0 and (outcome == 'limited' or outcome == 'overloaded') then
    news = shut_until(state, now + retry_after * 1000, reason, now)
  else
    return false
  end
  show_shut()
  return news
end

local function learn_call()
  speed_up(state, ticket.sent_at, now)
  state.call_us = averaged(state.call_us, math.max(0, now - ticket.sent_at))
  if used.input_tokens >= 0 and used.output_tokens >= 0 then
    learn_model(state, model, ticket.characters, used.input_tokens, used.output_tokens)
  end
end

-- A refusal says that the API's bucket of requests is empty, unless its headers say otherwise. Calls that were on their
-- way by then bear no news.
local function empty_bucket()
  local bucket = buckets_of(state, limits, now).requests
  if bucket and not said(7) and ticket.sent_at > (state.emptied_at or 0) then
    bucket.level, state.emptied_at = math.min(bucket.level, 0), now
    keep_bucket(state, bucket, now)
  end
end

local begun = outcome == 'begun'
if not begun and redis.call('ZREM', calls_key, ticket.id) == 0 then
  local shut = close()
  remember(key, state, SHUT)
  return {0, 0, shut and 1 or 0, 0}
end
local own = is_own()
local told = learn_limits()
local buckets = buckets_of(state, limits, now)
if not begun then
  correct_estimates(buckets)
end
heed_remaining(buckets, in_flight(state, calls_key, now))
for _, bucket in pairs(buckets) do
  keep_bucket(state, bucket, now)
end
if state.probe == ticket.id and not begun then
  state.probe = nil
end
local shut = not own and close()
if not own and heed_refusal(told, buckets.requests) then
  empty_bucket()
end
local opened = false
if outcome == 'answered' then
  learn_call()
  state[OK_AT] = math.max(state[OK_AT] or 0, ticket.sent_at)
  opened = open_again(state, ticket.sent_at, now)
  if not is_shut(state, now) then
    show_open()
  end
end
remember(key, state, fields)
return {1, own and 1 or 0, shut and 1 or 0, opened and 1 or 0}
