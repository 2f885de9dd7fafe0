-- Library (uses clock, bucket): a budget that the API has shut, by a `retry-after` or because it refuses the account.
--
-- A shut budget lets nobody through but now and then one job, the probe. Its success opens the budget: one answer may have
-- been the verdict on one job, a gateway's nonsense, or out of date.

-- Microseconds from one probe to the next: of the most important lane, since a person waits; of any other lane, and of
-- an account that is refused, for which somebody has to pay or to set another key.
local PROBE_SOON, PROBE_EVERY = 10 * SECOND, 60 * SECOND

local SHUT = {'closed_until', 'closed_at', 'closed_reason', 'probe_at', 'account'}

-- Microseconds until the API's `retry-after` is over. None is longer than an hour, so a time beyond that was set by a clock
-- that has been put back since.
local function shut_for(state)
  local wait = math.max(0, (state.closed_until or 0) - NOW_US)
  return wait <= MOST_DEBT * SECOND and wait or 0
end

local function is_shut(state)
  return state.account == 1 or shut_for(state) > 0
end

-- Microseconds until a job of a lane may leave, as the probe if need be; rank 1: the most important lane.
local function wait_for_probe(state, rank)
  local over = state.account == 1 and math.huge or shut_for(state)
  if over == 0 then
    return 0
  elseif not state.probe_at then
    return over
  end
  local later = (state.account == 1 or rank == 1) and 0 or PROBE_EVERY - PROBE_SOON
  local wait = state.probe_at + later - NOW_US
  return wait <= PROBE_EVERY and math.min(over, math.max(0, wait)) or 0
end

local function begin_probe(state)
  state.probe_at = NOW_US + (state.account == 1 and PROBE_EVERY or PROBE_SOON)
end

-- The API wants to be left alone. Returns whether the budget was open until now.
local function shut_until(state, till, reason)
  local was_shut = is_shut(state)
  if not was_shut then
    state.closed_at, state.probe_at = NOW_US, NOW_US + PROBE_SOON
  end
  if till > (state.closed_until or 0) and state.account ~= 1 then
    state.closed_reason = reason ~= '' and reason or nil
  end
  state.closed_until = math.max(state.closed_until or 0, till)
  return not was_shut
end

-- The API refuses the account. Returns whether it did not until now.
local function shut_account(state, reason)
  local was_refused = state.account == 1
  state.closed_reason = reason ~= '' and reason or nil
  if not was_refused then
    state.account, state.closed_at, state.probe_at = 1, NOW_US, NOW_US + PROBE_EVERY
  end
  return not was_refused
end

-- A call that left after the budget was shut went well. Returns whether that opens it.
local function open_again(state, sent_at)
  if not is_shut(state) or sent_at <= (state.closed_at or math.huge) then
    return false
  end
  for _, name in ipairs(SHUT) do
    state[name] = nil
  end
  return true
end
