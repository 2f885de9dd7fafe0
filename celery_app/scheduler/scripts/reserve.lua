-- Reserve: take a call's cost out of its budget if it may leave now, or say for how long it has to wait. For calls that are made by a task in its
-- slot, or outside of a worker; a job whose cost is known is claimed with its reservation. Repeating it reserves nothing twice.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: id of the call, which never was another's; ARGV[3] string: token under which its process keeps it alive
-- ARGV[4] string: lane. ARGV[5] JSON: the terms of its budget, as in lib/budgets.lua
-- ARGV[6] string: id of the job in hand; ARGV[7] string: token of its claim; both empty for a call without a job
-- ARGV[8] integer: requests; ARGV[9…12] integers: input tokens, characters, output tokens, most of these; ARGV[13]: whole; its
--   cost, as in lib/jobs.lua
-- ARGV[14] integer: 1 if it will ask again, and its place is to be kept meanwhile
-- ARGV[15] integer: nanodollars that it costs, 0: not known
-- ARGV[16…] the lanes, as claim.lua has them
--
-- Returns: the ticket, or '' if it has to wait; µs to wait; what is short, "paused", "cap", or "lost": the job in hand is somebody
-- else's by now; µs until the API's `retry-after` is over; why the API has shut the budget, or which quota is used up; 1 if it refuses the account; the input tokens
-- of a call that asks for more than the limit per minute, and that limit, or 0 and 0.

local own, token, lanes = ARGV[2], ARGV[3], read_lanes(16)
local id = token .. '|' .. own
local call = read_job(own)
if call and call.claim == token then
  return {call.ticket, 0, '', 0, '', 0, 0, 0} -- it was reserved for, and the answer was lost
end
local lane, terms = lanes[ARGV[4]], cjson.decode(ARGV[5])
local asked = {requests = tonumber(ARGV[8]), input_tokens = tonumber(ARGV[9]), characters = tonumber(ARGV[10]),
  output_tokens = tonumber(ARGV[11]), max_tokens = tonumber(ARGV[12]), whole = tonumber(ARGV[13])}
-- Only its place is looked at. One without a record has ended, or Redis has lost it: nobody else will run it.
local job = read_job(ARGV[6])
if job and job.claim ~= ARGV[7] then
  return {'', 0, 'lost', 0, '', 0, 0, 0}
end
redis.call('HSET', key('terms'), lane.name .. ':' .. terms.model, ARGV[5])
-- What a job has begun goes on; the first call of one is its beginning, and it can go back to its place.
local pause = (ARGV[6] == '' or ARGV[14] == '0') and pause_of(lane.name, terms.model)
if pause then
  return {'', pause.till > 0 and (pause.till - NOW) * 1000 or SECOND, 'paused', 0, '', 0, 0, 0}
end
local budget = budget_of(lane.name, terms.model)
-- Money, too, for what a job has begun: nobody else would stop it.
asked.usd, asked.tenant, asked.batch, asked.cap = tonumber(ARGV[15]), job and job.tenant or '', job and job.batch or '', job and job.cap or 0
local over = cap_reached(lane, asked, budget.terms)
if over then
  return {'', over.till > 0 and (over.till - NOW) * 1000 or SECOND, 'cap', 0, over.told, 0, 0, 0}
end
local cost = estimated(budget.state, asked)
local limit = exceeded(budget, asked, cost)
if limit then
  return {'', 0, 'input_tokens', 0, '', 0, math.floor(cost.input_tokens), math.floor(limit)}
end

-- It goes before what is queued in its lane. Of those that wait in slots, the order is that of their jobs; a call without one
-- is the youngest.
local function place_of()
  return job and job.step * STEP + job.number or 9 * STEP + redis.call('INCR', key('number'))
end

local queue, seconds = queue_of(lane, budget), seconds_of(budget, cost)
local kept = read_waiter(queue, id) or {since = job and job.submitted or NOW, place = place_of()}
local asker = {id = id, lane = lane, model = terms.model, cost = cost, start = 0, place = kept.place, slot = true,
  seconds = seconds > 0 and seconds or NOMINAL, asks = true}
for _, each in ipairs(lanes) do
  read_heads(each)
end
boost(lane, asker, kept.since)
local waiters = {asker}
for _, waiter in ipairs(read_waiters(lanes)) do
  if waiter.id ~= id then
    waiters[#waiters + 1] = waiter
  end
end
local wait, short, told
walk(lanes, waiters, function(head, its_wait, its_short)
  if head.asks then
    wait, short, told = its_wait, its_short, head.told
    return true
  end
  return false
end)
budget = budget_of(lane.name, terms.model)
local state = budget.state
if wait > 0 then
  if short == 'requests' then
    state.pressed_until = NOW_US + wait + PRESSED
  end
  remember(state)
  if ARGV[14] == '1' then
    keep_waiter(queue, id, {model = terms.model, cost = cost, place = kept.place, seconds = asker.seconds, since = kept.since})
  end
  local shut = short == 'closed'
  return {'', math.ceil(wait), short, shut and math.ceil(shut_for(state)) or 0, shut and state.closed_reason or told or '',
    shut and state.account or 0, 0, 0}
end
drop_waiter(queue, id)
local ticket = reserve(budget, lane, asked, cost, id)
share_out(lanes, asker, asker.seconds)
write_job(own, {budget = budget.name, claim = token, ticket = ticket})
redis.call('ZADD', LEASES, NOW, own)
return {ticket, 0, '', 0, '', 0, 0, 0}
