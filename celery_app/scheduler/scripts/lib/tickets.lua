-- Library (uses clock, bucket, budgets): the ticket of a reservation; see budgets.lua.

-- id, sent_at, characters, quotas: what was taken of these, as lib/quota.lua has it; taken and left: dimension -> units (left: nil where there was no bucket).
local function read_ticket(text)
  local sent_at, characters, requests, requests_left, input, input_left, output, output_left, id =
    string.match(text, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (.*)$')
  local of_text, usd, quotas = string.match(characters, '^([^;]*);?([^;]*);?(.*)$')
  return {id = id, sent_at = tonumber(sent_at), characters = tonumber(of_text), quotas = quotas,
    taken = {usd = tonumber(usd), requests = tonumber(requests), input_tokens = tonumber(input), output_tokens = tonumber(output)},
    left = {requests = tonumber(requests_left), input_tokens = tonumber(input_left), output_tokens = tonumber(output_left)}}
end

-- Capacities below zero to which a settlement lowers a level at most. The API lets no call through that is larger than a
-- minute of its limit, and that is four capacities of tokens: what goes further is nonsense, or the sum of many calls,
-- and of that the API's own `remaining` and 429s tell in time.
local MOST_SETTLED = 4

-- Replace what was reserved by what was used; used: a function, dimension -> units. Returns whether there is more room now.
local function correct(budget, ticket, used)
  local more = false
  for dimension, bucket in pairs(budget.buckets) do
    local too_much = ticket.taken[dimension] - used(dimension)
    local least = math.min(bucket.level, -MOST_SETTLED * bucket.capacity)
    bucket.level = math.min(bucket.capacity, math.max(least, bucket.level + too_much))
    ticket.left[dimension] = ticket.left[dimension] and ticket.left[dimension] + too_much
    more = more or too_much > ROUNDING
  end
  return more
end
