-- Library (uses clock): how many requests per second, where nobody says.
--
-- Two things, both in requests per second:
--   rate           The hidden limit, if neither the configuration nor a header names it: found by additive increase and
--                  multiplicative decrease (Chiu and Jain, 1989). There is none before the first 429.
--   overload_rate  What an overloaded API gets for a while (529, or no connection), whatever its limits: that is no
--                  limit of ours but everybody's, so it is forgotten as soon as calls go well again.
--
-- A burst of refusals for one overshoot counts once, but in proportion. Time is cut into epochs, each beginning with a
-- decrease. A refused call that was sent in the present epoch says that the present rate is too high. One sent before
-- says how far too high the last rate was: with `sent` calls of which `limited` were refused, the API took
-- 1 - limited/sent of that rate.

-- Decrease for the first refusal of an overshoot; and the least that is left of a rate, however many were refused.
local DECREASE, MOST_DECREASE = 0.9, 0.1

-- Calls of which a share says something. One refused call of one would otherwise stop everybody for 10 s.
local FEW = 5

-- Microseconds: an epoch lasts at least this long, so that its share of refusals means something.
local EPOCH = SECOND

-- Growth per second: slow near the limit that was just found; after QUIET s without a refusal the limit has probably
-- been raised, and growth itself grows, by GROWTH_STEP for each further second up to MOST_GROWTH.
local GROWTH, QUIET, GROWTH_STEP, MOST_GROWTH = 0.01, 8, 0.005, 0.08

-- Microseconds since a lane was last held back by the rate: an unused rate proves nothing and does not grow.
local PRESSED = 2 * SECOND

-- Requests per second that are always left: one in 10 s still finds out that the limit has been raised.
local LEAST_RATE = 0.1

-- Requests per second of the whole fleet that probe an API which is down: found up again within 0.5 s.
local PROBE_RATE = 2

-- First step down, and the step up with each call that goes well: from 2/s to 20/s in about 2 s.
local OVERLOAD_DECREASE, OVERLOAD_INCREASE = 0.5, 1.25

local PACE = {'rate', 'rate_at', 'pressed_until', 'epoch_at', 'sent', 'limited', 'prior_rate', 'prior_sent', 'prior_limited',
  'overload_rate', 'overload_from', 'overload_at', 'overload_ok', 'emptied_at'}

-- The rate for requests, where `known` is that of a configured or told limit, or nil.
local function paced(state, known)
  local rate = known or state.rate
  local overload = state.overload_rate
  return overload and math.min(rate or overload, overload) or rate
end

-- Count admitted requests, by the second until there is a rate, by the epoch from then on.
local function count_sent(state, requests)
  local age = NOW_US - (state.epoch_at or NOW_US - EPOCH)
  if not state.rate and (age >= EPOCH or age < 0) then
    state.prior_sent = age < 2 * EPOCH and state.sent or 0
    state.epoch_at, state.sent = NOW_US, 0
  end
  state.sent = (state.sent or 0) + requests
end

-- Requests per second lately, where there is no rate: the more of this second and the one before.
local function busy_rate(state)
  return math.max(1, state.sent or 0, state.prior_sent or 0)
end

-- Let the rate grow while it holds somebody back. An overloaded API has not accepted it, whoever waits.
local function grow(state)
  if not state.rate then
    return
  end
  if NOW_US < (state.pressed_until or 0) and not state.overload_rate then
    local quiet = (NOW_US - state.epoch_at) / SECOND - QUIET
    local growth = math.min(MOST_GROWTH, GROWTH + math.max(0, quiet) * GROWTH_STEP)
    state.rate = state.rate * (1 + growth * math.max(0, NOW_US - state.rate_at) / SECOND)
  end
  state.rate_at = NOW_US
end

local function begin_epoch(state)
  state.prior_rate, state.prior_sent, state.prior_limited = state.rate, math.max(1, state.sent or 0), state.limited or 0
  state.rate_at, state.epoch_at, state.sent, state.limited = NOW_US, NOW_US, 0, 0
end

-- What the API took of the last epoch's rate.
local function taken(state)
  local share = 1 - state.prior_limited / math.max(FEW, state.prior_sent)
  return state.prior_rate * math.max(MOST_DECREASE, math.min(DECREASE, share))
end

-- A call was refused; `sent_at`: when it was admitted. Returns whether that began an epoch.
local function cut(state, sent_at)
  if not state.rate then
    state.rate, state.limited = busy_rate(state), 1
    state.sent = (state.sent or 0) + (state.prior_sent or 0)
  elseif sent_at <= state.epoch_at then
    state.prior_limited = state.prior_limited + 1
    state.rate = math.max(LEAST_RATE, math.min(state.rate, taken(state)))
    return false
  else
    state.limited = state.limited + 1
    if NOW_US - state.epoch_at < EPOCH then
      return false
    end
  end
  begin_epoch(state)
  state.rate = math.max(LEAST_RATE, taken(state))
  return true
end

-- The API is overloaded; `rate`: what it got until now, or nil. Returns whether it gets less from now on.
local function slow_down(state, rate, sent_at)
  local before = state.overload_rate
  if before and (sent_at <= state.overload_at or NOW_US - state.overload_at < EPOCH) then
    return false
  end
  local from = before or rate or busy_rate(state)
  -- Not one call went well since the last step: it is down, so nothing but probes from now on.
  local target = before and state.overload_ok == 0 and 0 or from * OVERLOAD_DECREASE
  state.overload_from = state.overload_from or from
  state.overload_rate = math.min(from, math.max(PROBE_RATE, target))
  state.overload_at, state.overload_ok = NOW_US, 0
  return true
end

-- A call went well.
local function speed_up(state, sent_at)
  if not state.overload_rate or sent_at <= state.overload_at then
    return
  end
  state.overload_ok = 1
  state.overload_rate = state.overload_rate * OVERLOAD_INCREASE
  if state.overload_rate >= state.overload_from then
    state.overload_rate, state.overload_from, state.overload_at, state.overload_ok = nil, nil, nil, nil
    if state.rate then
      begin_epoch(state)
    end
  end
end
