-- Settle: replace the estimate by what a call really used, and learn from its answer.
--
-- A ticket is settled once; again, only what closes the budget is heard. A lease that is over does not matter: the call
-- ends now. A call that has just begun to answer can be heard before it is settled: its headers are all that counts then.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] JSON: the terms of the budget, as in lib/budgets.lua
-- ARGV[3] string: the ticket
-- ARGV[4] string: answered, limited (429), overloaded (529, no connection), refused (the account), failed, unsent, or begun
-- ARGV[5] integer: input tokens that count; -1: not known
-- ARGV[6] integer: output tokens; -1: not known
-- ARGV[7] integer: ms for which the API wants to be left alone; -1: it did not say
-- ARGV[8…13] integers: limit per minute and what remains of it, of requests, input tokens, output tokens; -1: not said
-- ARGV[14] string: why the API refused the call, or ''
-- ARGV[15] integer: µs since the epoch at which the job's last call left that was limited or overloaded; 0: none was
-- ARGV[16] string: id of the job if it ends with this answer, else ''; ARGV[17] string: id of its batch; ARGV[18] integer:
--   seconds for which is remembered that it has ended
-- ARGV[19] integer: nanodollars that the call has cost; -1: not known
-- ARGV[20] JSON: its bill, as in lib/spent.lua; '' or absent where there are no prices
-- ARGV[21…23] of a job whose prompt has a prefix only: that, as in lib/prefixes.lua; tokens that the API has read from its cache,
--   and that it has put there; -1: not known
--
-- The budgets that the API has shut are in a hash for all to see: "lane|family" -> "0 or 1 (the account is refused)", µs since
-- the epoch at which that is over by the server's own clock, and why, with a space between.
--
-- Returns numbers, each 1 or 0: whether the ticket was open; whether a refusal is a verdict on this job alone; whether the
-- budget was shut by this; whether it was opened; whether the job was cancelled, and so does not end with its answer. With a bill
-- the caps that are nearly used up since.

-- "Rounded to the nearest thousand" (platform.claude.com, rate limits): there may be this much more.
local ROUNDED = {requests = 0, input_tokens = 500, output_tokens = 500}

local budget = open_budget(cjson.decode(ARGV[2]))
local state, ticket, outcome = budget.state, read_ticket(ARGV[3]), ARGV[4]
local used = {input_tokens = tonumber(ARGV[5]), output_tokens = tonumber(ARGV[6]), usd = tonumber(ARGV[19])}
local retry_after, reason, refused_at = tonumber(ARGV[7]), ARGV[14], tonumber(ARGV[15])
local SHUT_BUDGETS = key('budget:shut')

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

local function said(i)
  local value = tonumber(ARGV[i])
  return value >= 0 and value or nil
end

-- Learn the limits that the headers tell; returns whether they told any.
local function learn_limits()
  local told = false
  for i, dimension in ipairs(DIMENSIONS) do
    local limit = said(6 + 2 * i)
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
local function heed_remaining(open_calls)
  for i, dimension in ipairs(DIMENSIONS) do
    local bucket, remaining = budget.buckets[dimension], said(7 + 2 * i)
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
local function heed_refusal(told)
  local request_bucket = budget.buckets.requests
  if outcome == 'limited' then
    local known = told or known_rate(state, 'requests', budget.terms.requests)
    return known or cut(state, ticket.sent_at)
  end
  return outcome == 'overloaded' and slow_down(state, request_bucket and request_bucket.rate, ticket.sent_at)
end

-- Whether a refusal is this job's own: it was refused before, others have been answered since, and nobody else was refused
-- for the first time. Its prompt may be one that the key may never send; that is nobody else's business.
local function is_own()
  if outcome ~= 'limited' and outcome ~= 'overloaded' then
    return false
  elseif refused_at == 0 then
    state.fresh_refusal_at = math.max(state.fresh_refusal_at or 0, ticket.sent_at)
    return false
  end
  return (state.ok_at or 0) > refused_at and (state.fresh_refusal_at or 0) <= refused_at
end

local function show_shut()
  local till = (state.closed_until or 0) - AHEAD
  local value = string.format('%d %.0f %s', state.account or 0, till, state.closed_reason or '')
  for _, lane in ipairs(budget.terms.sharers) do
    redis.call('HSET', SHUT_BUDGETS, lane .. '|' .. budget.terms.family, value)
  end
  redis.call('EXPIRE', SHUT_BUDGETS, KEPT)
end

local function show_open()
  if redis.call('EXISTS', SHUT_BUDGETS) == 1 then
    for _, lane in ipairs(budget.terms.sharers) do
      redis.call('HDEL', SHUT_BUDGETS, lane .. '|' .. budget.terms.family)
    end
  end
end

-- Returns whether the budget was open until now.
local function close()
  local news = false
  if outcome == 'refused' then
    news = shut_account(state, reason)
  elseif retry_after > 0 and (outcome == 'limited' or outcome == 'overloaded') then
    news = shut_until(state, NOW_US + retry_after * 1000, reason)
  else
    return false
  end
  show_shut()
  return news
end

local function learn_call()
  speed_up(state, ticket.sent_at)
  state.call_us = averaged(state.call_us, math.max(0, NOW_US - ticket.sent_at))
  if used.input_tokens >= 0 and used.output_tokens >= 0 then
    local read = math.max(0, tonumber(ARGV[22] or 0)) -- it counts for no limit, and is part of the text all the same
    learn_model(state, ticket.characters, used.input_tokens + read, used.output_tokens)
  end
end

-- A refusal says that the API's bucket of requests is empty, unless its headers say otherwise. Calls that were on their
-- way by then bear no news.
local function empty_bucket()
  budget.buckets = buckets_of(state, budget.terms)
  local bucket = budget.buckets.requests
  if bucket and not said(9) and ticket.sent_at > (state.emptied_at or 0) then
    bucket.level, state.emptied_at = math.min(bucket.level, 0), NOW_US
  end
end

-- There is room that nobody expected: somebody may go who was told to wait.
local function tell_waiting()
  for _, lane in ipairs(budget.terms.sharers) do
    if redis.call('EXISTS', models_key(lane)) == 1 then
      wake(lane)
    end
  end
end

-- Whether the job ends as it was going to; decided here, so that it costs no command of its own.
local function is_cancelled()
  return outcome == 'answered' and ARGV[16] ~= '' and not may_end(ARGV[16], ARGV[17], ARGV[18])
end

-- Takes the call out of those that are not settled; returns whether it was there. One that was taken for dead ends now, too.
local function end_call()
  return redis.call('SREM', budget.calls, ticket.id) == 1 or redis.call('SREM', budget.name .. ':lapsed', ticket.id) == 1
end

local begun = outcome == 'begun'
if not begun and not end_call() then
  local shut = close()
  remember(state)
  return {0, 0, shut and 1 or 0, 0, is_cancelled() and 1 or 0}
end
local warnings = (ARGV[20] or '') ~= '' and not begun and note_spent(ARGV[20], tonumber(ARGV[19]), ticket) or nil
local own = is_own()
local told = learn_limits()
budget.buckets = buckets_of(state, budget.terms)
local freed = not begun and correct_quotas(ticket, really_taken, let_in)
local more = not begun and correct(budget, ticket, really_taken) or freed
heed_remaining(in_flight(budget.calls))
for _, bucket in pairs(budget.buckets) do
  keep_bucket(state, bucket)
end
local shut = not own and close()
if not own and heed_refusal(told) then
  empty_bucket()
end
local opened = false
if outcome == 'answered' then
  learn_call()
  state.ok_at = math.max(state.ok_at or 0, ticket.sent_at)
  opened = open_again(state, ticket.sent_at)
  if not is_shut(state) then
    show_open()
  end
end
local waited, first = hear_of_prefixes(budget, ticket, ARGV[21], outcome, ARGV[22], ARGV[23])
state.first_us = first and averaged(state.first_us, NOW_US - ticket.sent_at) or state.first_us
save_budget(budget)
if opened or more or waited or budget.terms.calls > 0 then
  tell_waiting()
end
return {1, own and 1 or 0, shut and 1 or 0, opened and 1 or 0, is_cancelled() and 1 or 0, warnings}
