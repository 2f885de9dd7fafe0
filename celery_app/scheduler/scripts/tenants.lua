-- Tenants: who has the most jobs waiting in each lane. Nothing is written.
--
-- Nobody keeps these numbers: they would cost each job two commands. So lines are counted, a bounded number of them; of a crowd
-- of tenants it is some, others each time, and those whom the caller names since they had the most the last time.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys. ARGV[2] number: of lanes
-- ARGV[3…] strings: the lanes' names, then names of tenants, at most MOST_ROWS for each lane
--
-- Returns for each lane, an array: how many tenants were not looked at, at least; then tenant and jobs, the most jobs first.

-- Lines of a lane that are counted: a millisecond of Redis.
local MOST_COUNTED = 300

local MOST_ROWS = 10

local lanes = tonumber(ARGV[2])

-- Some of a model's tenants, from anywhere on and round; of another model with the same tenants mostly the same. How many there are.
local function tenants_of(lane, model, most)
  local tenants = tenants_key(lane, model)
  local number = redis.call('ZCARD', tenants)
  local first = number > most and NOW_US % number or 0
  local some = redis.call('ZRANGE', tenants, first, first + most - 1)
  if number > most and first + most > number then
    for _, tenant in ipairs(redis.call('ZRANGE', tenants, 0, first + most - number - 1)) do
      some[#some + 1] = tenant
    end
  end
  return some, number
end

-- The tenants to look at, each once, and how many there are of the model that has most.
local function some_of(lane, models)
  local some, seen, most = {}, {}, 0
  local function add(tenants)
    for _, tenant in ipairs(tenants) do
      some[#some + 1] = not seen[tenant] and tenant or nil
      seen[tenant] = true
    end
  end
  for i = 3 + lanes, math.min(#ARGV, 2 + lanes + MOST_ROWS * lanes) do
    add({ARGV[i]})
  end
  for _, model in ipairs(models) do
    local tenants, number = tenants_of(lane, model, math.ceil(MOST_COUNTED / #models))
    add(tenants)
    most = math.max(most, number)
  end
  return some, most
end

local function jobs_of(lane, models, tenant)
  local jobs = 0
  for _, model in ipairs(models) do
    jobs = jobs + redis.call('ZCARD', line_key({lane = lane, model = model, tenant = tenant}))
  end
  return jobs
end

-- Put a row among those with the most jobs.
local function note(rows, tenant, jobs)
  local place = #rows + 1
  while place > 1 and rows[place - 1].jobs < jobs do
    place = place - 1
  end
  if place <= MOST_ROWS then
    table.insert(rows, place, {tenant = tenant, jobs = jobs})
    rows[MOST_ROWS + 1] = nil
  end
end

local function look_at(lane)
  local models, rows, left = models_of(lane), {}, MOST_COUNTED
  local some, there = some_of(lane, models)
  for _, tenant in ipairs(some) do
    left = left - #models
    local jobs = left >= 0 and jobs_of(lane, models, tenant) or 0
    there = jobs > 0 and there - 1 or there
    if jobs > 0 then
      note(rows, tenant, jobs)
    end
  end
  local reply = {math.max(0, there)}
  for _, row in ipairs(rows) do
    reply[#reply + 1], reply[#reply + 2] = row.tenant, row.jobs
  end
  return reply
end

local replies = {}
for i = 1, lanes do
  replies[i] = look_at(ARGV[2 + i])
end
return replies
