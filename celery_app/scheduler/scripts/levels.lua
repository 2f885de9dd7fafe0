-- Levels: what is in each budget, as the scheduler reckons; nothing is taken and nothing is written.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
--
-- Returns an array: how many models were left out; the budgets; their levels.
--   a budget: its lanes with commas between, family, calls in flight, most calls (0: no limit), why it is shut (account, retry_after,
--     '': it is open), ms until the API's `retry-after` is over
--   a level: lanes, family, model ('': what all models of the budget share), dimension, limit per minute, level, capacity, the three
--     as texts, since they may be fractions

-- Models of a lane that are looked at, at most: anybody may name models, and each is two reads.
local MOST_SHOWN = 32

local budgets, levels, seen, shown, left_out = {}, {}, {}, {}, 0

local function precise(number)
  return string.format('%.17g', number)
end

local function once(...)
  local name = table.concat({...}, '|')
  local first = not seen[name]
  seen[name] = true
  return first
end

local function why_shut(state)
  return state.account == 1 and 'account' or shut_for(state) > 0 and 'retry_after' or ''
end

local function show_levels(lanes, budget)
  local terms, state = budget.terms, budget.state
  for dimension, bucket in pairs(budget.buckets) do
    local model = terms.mixed and terms[dimension] == 0 and terms.model or ''
    if once(budget.name, model, dimension) then
      local limit = terms[dimension] > 0 and terms[dimension] or state[dimension .. '_limit'] or bucket.rate * 60
      levels[#levels + 1] = {lanes, terms.family, model, dimension, precise(limit), precise(bucket.level), precise(bucket.capacity)}
    end
  end
end

local function show(budget)
  local terms, state = budget.terms, budget.state
  local lanes = table.concat(terms.sharers, ',')
  if once(budget.name) then
    budgets[#budgets + 1] = {lanes, terms.family, in_flight(budget.calls), terms.calls, why_shut(state),
      math.ceil(shut_for(state) / 1000)}
  end
  show_levels(lanes, budget)
end

local function is_whole(terms)
  return type(terms.sharers) == 'table' and type(terms.family) == 'string'
end

local fields = redis.call('HKEYS', key('terms'))
table.sort(fields)
for _, field in ipairs(fields) do
  local lane = string.match(field, '^[^:]*')
  shown[lane] = (shown[lane] or 0) + 1
  if shown[lane] > MOST_SHOWN then
    left_out = left_out + 1
  else
    local terms = terms_in(redis.call('HGET', key('terms'), field))
    if terms and is_whole(terms) then
      show(open_budget(terms))
    end
  end
end
return {left_out, budgets, levels}
