-- Census: count each lane's jobs in every place where a job can be.
--
-- Nothing leaves the server but numbers: a message may be megabytes, so the age of a lane's head is read here.
--
-- KEYS: none; every key is made from the prefix.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: separator between a queue's name and a priority step
-- ARGV[3] string: priority steps, as in "0,3,6,9"
-- ARGV[4…] string: the lanes' names
--
-- Returns for each lane: jobs queued, age in ms of the oldest queued job (nil: none, or it does not say), claimed,
-- returning, dead; ms until the last of its closed gates opens (0: none is closed), the model at that gate.

-- Bytes: headers and properties, which kombu writes last, fit.
local TAIL = 8192

-- Bytes of returned jobs to look at: the server has no way to read only the beginning of a hash field, and must not be
-- held up by copying. What is beyond is taken to be divided like what was seen.
local MOST_LOOKED_AT = 8 * 1024 * 1024

local prefix, separator, steps = ARGV[1], ARGV[2], ARGV[3]

local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000

local function age_of_head(list)
  local text = redis.call('LINDEX', list, -1)
  local submitted = text and string.match(string.sub(text, -TAIL), '^.*"submitted_at"%s*:%s*([%d%.]+)')
  -- The publisher's clock may run ahead of ours.
  return submitted and math.max(0, math.floor(now - tonumber(submitted) * 1000))
end

local function older(row, list)
  local age = age_of_head(list)
  row.oldest = age and math.max(age, row.oldest or 0) or row.oldest
end

local rows, lane_of_list = {}, {}
for i = 4, #ARGV do
  local lane = ARGV[i]
  local row = {depth = 0, claimed = 0, returning = 0, gate = 0, gate_model = ''}
  row.depth = tonumber(redis.call('HGET', prefix .. 'lanes:aside_depth', lane) or 0)
  row.dead = tonumber(redis.call('HGET', prefix .. 'lanes:dead_lanes', lane) or 0)
  for step in string.gmatch(steps, '%d+') do
    local list = step == '0' and lane or lane .. separator .. step
    lane_of_list[list] = row
    row.depth = row.depth + redis.call('LLEN', prefix .. list)
    older(row, prefix .. list)
  end
  rows[#rows + 1] = row
end

for _, name in ipairs(redis.call('HKEYS', prefix .. 'lanes:asides')) do
  local row = lane_of_list[string.match(name, '^[^|]*')]
  if row then
    older(row, prefix .. 'lanes:aside:' .. name)
  end
end

for _, claim in ipairs(redis.call('HVALS', prefix .. 'lanes:claims')) do
  local row = lane_of_list[string.match(claim, '|([^|]*)$')]
  if row then
    row.claimed = row.claimed + 1
  end
end

local tags, looked_at, bytes = redis.call('HKEYS', prefix .. 'lanes:returned'), 0, 0
for _, tag in ipairs(tags) do
  local returned = redis.call('HGET', prefix .. 'lanes:returned', tag)
  local row = lane_of_list[string.match(returned, '^([^|]*)|')]
  if row then
    row.returning = row.returning + 1
  end
  looked_at, bytes = looked_at + 1, bytes + #returned
  if bytes > MOST_LOOKED_AT then
    break
  end
end

local gates = redis.call('HGETALL', prefix .. 'lanes:gates')
for i = 1, #gates, 2 do
  local lane, model = string.match(gates[i], '^([^|]*)|(.*)$')
  local row, wait = lane_of_list[lane], tonumber(string.match(gates[i + 1], '^%d+')) - now
  if row and wait > row.gate then
    row.gate, row.gate_model = math.ceil(wait), model
  end
end

local reply = {}
for i, row in ipairs(rows) do
  local returning = math.floor(row.returning * #tags / math.max(1, looked_at) + 0.5)
  reply[i] = {row.depth, row.oldest or false, row.claimed, returning, row.dead, row.gate, row.gate_model}
end
return reply
