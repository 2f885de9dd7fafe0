-- Stats: count each lane's jobs in every place where a job can be.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: separator between a queue's name and a priority step. ARGV[3] string: priority steps, as in "0,3,6,9"
-- ARGV[4…] string: the lanes' names
--
-- Returns for each lane: jobs queued, age in ms of the oldest queued job (nil: none; of more lines
-- than are looked into, about the oldest), held, scheduled, dead, shipped.

-- Lines of a lane that are looked into for the oldest job, at most. Of many tenants it is those whose turns are last: they have been served
-- for the longest, and still have jobs.
local MOST_LINES = 32

local function arrived(lane)
  local number = redis.call('LLEN', key('arrived:' .. lane))
  for step in string.gmatch(ARGV[3], '%d+') do
    number = number + redis.call('LLEN', ARGV[1] .. (step == '0' and lane or lane .. ARGV[2] .. step))
  end
  return number
end

-- ms since the submission of a job, or `oldest` if that is more; nil: neither is known.
local function older(id, oldest)
  local job = id and read_job(id)
  local age = job and math.max(0, NOW - job.submitted)
  return age and math.max(age, oldest or 0) or oldest
end

-- A line is in the order of arrival within each priority step.
local function oldest_in(line, oldest)
  local from = '-inf'
  repeat
    local first = redis.call('ZRANGEBYSCORE', line, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    oldest = older(first[1], oldest)
    from = first[2] and string.format('%.0f', (math.floor(first[2] / STEP) + 1) * STEP)
  until not from
  return oldest
end

local function oldest_age(lane)
  local models, oldest = models_of(lane), nil
  local tenants = math.max(1, math.floor(MOST_LINES / #models))
  for i = 1, math.min(#models, MOST_LINES) do
    for _, tenant in ipairs(redis.call('ZREVRANGE', tenants_key(lane, models[i]), 0, tenants - 1)) do
      oldest = oldest_in(line_key({lane = lane, model = models[i], tenant = tenant}), oldest)
    end
  end
  return oldest
end

local reply = {}
for i = 4, #ARGV do
  local lane = ARGV[i]
  local dead = redis.call('HGET', key('dead_totals'), lane .. ':dead') or '0'
  reply[#reply + 1] = {number_of(lane, 'queued') + arrived(lane), oldest_age(lane) or false, number_of(lane, 'held'),
    number_of(lane, 'scheduled'), tonumber(dead), number_of(lane, 'shipped')}
end
return reply
