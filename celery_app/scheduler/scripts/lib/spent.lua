-- Library (uses clock, controls): what calls have cost, by hour and by day. Its first call is a settled one, which happens once.
--
-- A window is a hash: "<what>|<kind>|<name>" -> an amount; what: calls, usd and saved (nanodollars; what message batches have
-- spared), unpriced (calls of a model without a price); kind: lane, model, tenant, and all, without a name. A batch has its
-- `usd` and `saved` among its counts.

-- Seconds that windows are kept: a day longer than two days, and than 40.
local SPENT_HOURS_KEPT, SPENT_DAYS_KEPT = 3 * 86400, 41 * 86400

-- Fields of a window at most: anybody may name tenants and models. Beyond it the new ones are counted as others.
local MOST_SPENDERS = 5000

-- Of a cap, from which on somebody is told.
local NEARLY = 0.8

local NO_NAMES = {all = true, lane = true}

-- The server's own clock, in seconds: the one that says which day it is.
local WALL_S = math.floor((NOW_US - AHEAD) / SECOND)

-- The day that it is. days: when each begins, in seconds since the epoch, and its name.
local function day_of(days)
  local name = days[1][2]
  for _, day in ipairs(days) do
    name = day[1] <= WALL_S and day[2] or name
  end
  return name
end

-- Add an amount to a window; returns what the field has then.
local function add_spent(window, what, kind, name, amount)
  if amount == 0 then
    return 0
  end
  local field, number = what .. '|' .. kind .. '|' .. name, string.format('%.0f', amount)
  local sum = redis.call('HINCRBY', window, field, number)
  if sum == amount and not NO_NAMES[kind] and redis.call('HLEN', window) > MOST_SPENDERS then
    redis.call('HDEL', window, field)
    redis.call('HINCRBY', window, what .. '|other ' .. kind .. 's|', number)
  end
  return sum
end

-- Add a bill to a window; returns for each kind what it has spent there by now.
local function add_bill(window, kept, bill, usd)
  local sums = {}
  for kind, name in pairs({all = '', lane = bill.lane, model = bill.model, tenant = bill.tenant}) do
    add_spent(window, 'calls', kind, name, 1)
    add_spent(window, 'saved', kind, name, bill.saved)
    sums[kind] = add_spent(window, 'usd', kind, name, usd)
  end
  add_spent(window, 'unpriced', 'model', bill.model, bill.unpriced)
  redis.call('EXPIRE', window, kept)
  return sums
end

-- What a cap allows, in nanodollars, or nil; names as in lib/quota.lua.
local function allowed(name)
  local set = controls().caps and controls().caps[name]
  local limit = set or tonumber(redis.call('HGET', key('caps'), name) or '')
  return limit and limit > 0 and limit or nil
end

-- Note a cap of which a call has used the last part that nobody is warned of: name, spent, limit, day.
local function warn(warnings, name, limit, spent, usd, day)
  if limit and spent >= NEARLY * limit and spent - usd < NEARLY * limit then
    warnings[#warnings + 1] = {name, string.format('%.0f', spent), string.format('%.0f', limit), day}
  end
end

local function bill_batch(warnings, bill, usd)
  local batch = key('batch:' .. bill.batch)
  if bill.batch == '' or redis.call('EXISTS', batch) == 0 then
    return
  end
  local spent = redis.call('HINCRBY', batch, 'usd', string.format('%.0f', usd))
  if bill.saved > 0 then
    redis.call('HINCRBY', batch, 'saved', string.format('%.0f', bill.saved))
  end
  warn(warnings, 'batch|' .. bill.batch, tonumber(redis.call('HGET', batch, 'lanes_cap') or ''), spent, usd, '')
end

-- Write down what a call has cost. text: JSON: lane, model, tenant, batch; saved; unpriced (1: the model has no price); rates
-- (nanodollars per token of input and output) for a call of which nobody says what it used; days, as above. usd: nanodollars, -1: not
-- known, what it has reserved counts. Returns the caps that are nearly used up since.
local function note_spent(text, usd, ticket)
  local bill, warnings = cjson.decode(text), {}
  if usd < 0 then
    usd = math.floor(ticket.taken.input_tokens * bill.rates[1] + ticket.taken.output_tokens * bill.rates[2])
  end
  local day = day_of(bill.days)
  add_bill(key('spent:hour:' .. math.floor(WALL_S / 3600)), SPENT_HOURS_KEPT, bill, usd)
  local sums = add_bill(key('spent:day:' .. day), SPENT_DAYS_KEPT, bill, usd)
  warn(warnings, 'all|', allowed('all|'), sums.all, usd, day)
  warn(warnings, 'lane|' .. bill.lane, allowed('lane|' .. bill.lane), sums.lane, usd, day)
  if bill.tenant ~= '' then
    warn(warnings, 'tenant|' .. bill.tenant, allowed('tenant|' .. bill.tenant) or allowed('tenant|*'), sums.tenant, usd, day)
  end
  bill_batch(warnings, bill, usd)
  redis.call('HINCRBY', key('metrics:totals'), bill.lane .. ':usd', string.format('%.0f', usd))
  redis.call('HINCRBY', key('metrics:totals'), bill.lane .. ':usd_saved', string.format('%.0f', bill.saved))
  return warnings
end
