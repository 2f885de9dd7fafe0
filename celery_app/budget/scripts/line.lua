-- Library (uses clock): who goes first when the budget is short.
--
-- Each lane has one place for a job that was denied: its holder. While a holder waits, those behind it leave its cost
-- in the bucket. Without that a large job would never be admitted: the small jobs of lower lanes would take whatever
-- comes in, long before the level is high enough for the large one.
--
-- The order is total, so that nobody waits for one who waits for him: the most important lane; then the holders that
-- are owed a share, by lane; then the other lanes; within a lane, the job that has waited longest. The most important
-- lane gives nothing up, and no share is taken out of its part.
--
-- Times in microseconds since the epoch.

-- A holder that does not ask again this long after it was told to has given up, or its worker died. Whose wait is not
-- certain asks again within half of this time, whatever it was told (tasks/admission.py), because a call in flight may be
-- settled lower than it was estimated. One that has not done so although the level has become enough for it is absent:
-- see `give_way`.
local LAPSE = 2 * SECOND

-- The place of a lane, or nil: lane, rank, till, asked, since, owed, cost (dimension -> units), waiter.
local function holder_of(state, lane, rank, now)
  local text = state['place:' .. lane]
  if not text then
    return nil
  end
  local pattern = '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (.*)$'
  local till, asked, since, owed, requests, input_tokens, output_tokens, waiter = string.match(text, pattern)
  if not till or now > tonumber(till) + LAPSE then
    return nil
  end
  local cost = {requests = tonumber(requests), input_tokens = tonumber(input_tokens),
    output_tokens = tonumber(output_tokens)}
  return {lane = lane, rank = rank, till = tonumber(till), asked = tonumber(asked), since = tonumber(since),
    owed = owed == '1', cost = cost, waiter = waiter}
end

local function take_place(state, asker, wait, now)
  local cost = asker.cost
  state['place:' .. asker.lane] = string.format('%.0f %.0f %.0f %s %.17g %.17g %.17g %s', now + wait, now, asker.since,
    asker.owed and '1' or '0', cost.requests, cost.input_tokens, cost.output_tokens, asker.waiter)
end

local function precedes(holder, asker)
  if holder.rank == asker.rank then
    return holder.waiter ~= asker.waiter and holder.since <= asker.since
  elseif holder.rank == 1 or asker.rank == 1 then
    return holder.rank == 1
  elseif holder.owed ~= asker.owed then
    return holder.owed
  end
  return holder.rank < asker.rank
end

-- Whether nobody of the asker's own lane goes before it.
local function is_first(asker, state, now)
  local holder = holder_of(state, asker.lane, asker.rank, now)
  return not holder or not precedes(holder, asker)
end

-- The holders that go before the asker (or before a holder).
local function before(asker, state, lanes, now)
  local found = {}
  for rank, lane in ipairs(lanes) do
    local holder = holder_of(state, lane.name, rank, now)
    if holder and precedes(holder, asker) then
      found[#found + 1] = holder
    end
  end
  return found
end

-- What holders wait for: dimension -> units, and calls.
local function sum_of(holders)
  local sum = {requests = 0, input_tokens = 0, output_tokens = 0, calls = #holders}
  for _, holder in ipairs(holders) do
    for dimension, cost in pairs(holder.cost) do
      sum[dimension] = sum[dimension] + cost
    end
  end
  return sum
end
