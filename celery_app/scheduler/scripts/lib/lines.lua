-- Library (uses clock, jobs, wakeup, controls): the lines. A line has the jobs of one lane, model and tenant, by priority step and then
-- by number, so that a job which comes back stands where it stood.
--
-- Between the tenants of a lane it is start-time fair queueing (Goyal, Vin and Cheng, 1996): a tenant's next job has a start
-- tag, the least goes first, and each job moves its tenant's tag on by its cost / weight. One that was idle starts at the
-- lane's present time, the greatest start tag that was served; nobody saves up. Without tenants that is first in, first out.

-- Jobs of one priority step: their numbers are below this. And the step before all others.
local STEP, FRONT = 1e13, -1

-- Models of a lane that one claim looks at; of more, as many at random, so that none is forgotten.
local MOST_MODELS = 32

-- Entries that are put right at once, at most.
local MOST_MENDED = 64

-- In the set of tenants, one that may cost no more stands behind all others: its tag is this and the ms when that is over.
local ASIDE = 1e15

-- Set: the batches with jobs that are set aside, each in a line of its own.
local function parked_key(lane)
  return key('parked:' .. lane)
end

local function line_key(job)
  if job.parked == 1 then
    return key('parked:' .. job.lane .. ':' .. job.batch)
  end
  return key('line:' .. job.lane .. ':' .. #job.model .. ':' .. job.model .. ':' .. job.tenant)
end

-- Sorted set: the tenants of a lane with a line for a model, by start tag. One that is out of date is less than it should be.
local function tenants_key(lane, model)
  return key('tenants:' .. lane .. ':' .. model)
end

-- Sorted set: the tenants that had jobs served, by the start tag of their next one.
local function turns_key(lane)
  return key('turns:' .. lane)
end

-- Hash: lane -> its present time; where somebody has deleted it, that is the least tag that is known.
local CLOCKS = key('clocks')

local function present_of(lane)
  return tonumber(redis.call('HGET', CLOCKS, lane) or redis.call('ZRANGE', turns_key(lane), 0, 0, 'WITHSCORES')[2] or '0')
end

local function models_key(lane)
  return key('models:' .. lane)
end

local function models_of(lane)
  return redis.call('SRANDMEMBER', models_key(lane), MOST_MODELS)
end

local function start_tag(lane, tenant)
  return math.max(present_of(lane), tonumber(redis.call('ZSCORE', turns_key(lane), tenant) or '0'))
end

local DEADLINES = key('deadlines')

-- Lines that are known to be there.
local there = {}

-- Put a job into its line; nobody is woken.
local function enter_line(id, job)
  local line = line_key(job)
  if job.parked == 1 then
    redis.call('SADD', parked_key(job.lane), job.batch)
  elseif not there[line] then
    if not redis.call('ZSCORE', tenants_key(job.lane, job.model), job.tenant) then
      redis.call('ZADD', tenants_key(job.lane, job.model), start_tag(job.lane, job.tenant), job.tenant)
    end
    redis.call('SADD', models_key(job.lane), job.model) -- whatever has become of these keys, the line is found
  end
  redis.call('ZADD', line, job.step * STEP + job.number, id)
  there[line] = true
  if job.deadline > 0 then
    redis.call('ZADD', DEADLINES, job.deadline, id)
  end
  count(job.lane, 'queued', 1)
end

-- Whether a claim comes to a job's line.
local function is_listed(job)
  if job.parked == 1 then
    return redis.call('SISMEMBER', parked_key(job.lane), job.batch) == 1
  end
  return redis.call('ZSCORE', tenants_key(job.lane, job.model), job.tenant)
    and redis.call('SISMEMBER', models_key(job.lane), job.model) == 1
end

local function drop_tenant(lane, model, tenant)
  redis.call('ZREM', tenants_key(lane, model), tenant)
  if redis.call('EXISTS', tenants_key(lane, model)) == 0 then
    redis.call('SREM', models_key(lane), model)
  end
end

-- Take a job out of its line; returns whether it was there.
local function leave_line(id, job)
  local line = line_key(job)
  if redis.call('ZREM', line, id) == 0 then
    return false
  end
  if redis.call('EXISTS', line) == 0 then
    there[line] = nil
    if job.parked == 1 then
      redis.call('SREM', parked_key(job.lane), job.batch)
    else
      drop_tenant(job.lane, job.model, job.tenant)
    end
  end
  if job.deadline > 0 then
    redis.call('ZREM', DEADLINES, id)
  end
  count(job.lane, 'queued', -1)
  job.parked = 0
  return true
end

-- Take out of a line what does not stand there: somebody has deleted its record, or a worker of an earlier version has put it there that
-- does not know of where it is. There it is counted.
local function drop_entry(lane, line, id, job)
  redis.call('ZREM', line, id)
  if not job then
    count(lane, 'queued', -1)
  end
end

-- The job of a lane's model that is next by turns, or nil: id, job, start (its tag), place; aside: all tenants are set aside.
local function head_of(lane, model)
  for _ = 1, MOST_MENDED do
    local first = redis.call('ZRANGE', tenants_key(lane, model), 0, 0, 'WITHSCORES')
    local tenant, start = first[1], tonumber(first[2])
    if not tenant then
      redis.call('SREM', models_key(lane), model)
      return nil
    end
    local turn = tonumber(redis.call('ZSCORE', turns_key(lane), tenant) or '0')
    if turn > start then
      redis.call('ZADD', tenants_key(lane, model), turn, tenant) -- it had jobs of another model served since
    else
      local line = line_key({lane = lane, model = model, tenant = tenant})
      local entry = redis.call('ZRANGE', line, 0, 0, 'WITHSCORES')
      local job = entry[1] and read_job(entry[1])
      if job and line_key(job) == line and job.ship ~= SHIPPED then
        local aside = start >= ASIDE
        return {id = entry[1], job = job, start = aside and start_tag(lane, tenant) or start, place = tonumber(entry[2]), aside = aside}
      elseif entry[1] then
        drop_entry(lane, line, entry[1], job)
      else
        drop_tenant(lane, model, tenant)
      end
    end
  end
end

-- The first tenants of a lane's model by turns, without those that are set aside.
local function tenants_at_turn(lane, model, most)
  return redis.call('ZRANGEBYSCORE', tenants_key(lane, model), '-inf', '(' .. ASIDE, 'LIMIT', 0, most)
end

-- Jobs of a lane's model that are looked at for one that is no suspect, at most half of what is left in each line: many suspects
-- of one tenant hide no other's jobs.
local MOST_PASSED = 128

-- The first job by turns that is no suspect, as a head, or nil.
local function unsuspected(lane, model)
  local left = MOST_PASSED
  for _, tenant in ipairs(tenants_at_turn(lane, model, MOST_PASSED)) do
    left = math.floor(left / 2)
    local line = line_key({lane = lane, model = model, tenant = tenant})
    local entries = left > 0 and redis.call('ZRANGE', line, 0, left - 1, 'WITHSCORES') or {}
    for i = 1, #entries, 2 do
      local job = read_job(entries[i])
      if job and not is_suspect(job) and line_key(job) == line then
        return {id = entries[i], job = job, start = start_tag(lane, tenant), place = tonumber(entries[i + 1])}
      end
    end
  end
end

-- Hash: tenant -> weight. A turn that is longer by more than a thousand times would move the lane's time past what numbers
-- can tell apart, and nobody would have turns any more.
local WEIGHTS, LEAST_WEIGHT, MOST_WEIGHT = key('weights'), 0.001, 1000

local function weight_of(tenant)
  local weight = tenant ~= '' and (controls().weights[tenant] or tonumber(redis.call('HGET', WEIGHTS, tenant) or '')) or 1
  return math.min(math.max(LEAST_WEIGHT, weight), MOST_WEIGHT)
end

-- Seconds of a budget that a job counts for where no limit is known.
local NOMINAL = 0.05

-- Tags below the lane's present time say nothing any more; they are dropped now and then. So are the least of too many: of
-- a crowd of tenants with a job each.
local CLEAN_EVERY, MOST_TURNS, MOST_CLEANED = 64, 10000, 256

local function clean_turns(lane, present)
  local below = '(' .. string.format('%.17g', present)
  local stale = redis.call('ZRANGEBYSCORE', turns_key(lane), '-inf', below, 'LIMIT', 0, MOST_CLEANED)
  if stale[1] then
    redis.call('ZREM', turns_key(lane), unpack(stale))
  end
  redis.call('ZREMRANGEBYRANK', turns_key(lane), 0, -MOST_TURNS - 1)
end

-- A job has been served: move its tenant's tag on. seconds: of its budget, 0 where no limit is known.
local function take_turn(head, seconds)
  local lane, tenant = head.job.lane, head.job.tenant
  local turn = head.start + (seconds > 0 and seconds or NOMINAL) / weight_of(tenant)
  local present = math.max(head.start, present_of(lane))
  redis.call('HSET', CLOCKS, lane, string.format('%.17g', present))
  redis.call('ZADD', turns_key(lane), turn, tenant)
  redis.call('ZADD', tenants_key(lane, head.job.model), 'XX', turn, tenant)
  if head.job.number % CLEAN_EVERY == 0 then
    clean_turns(lane, present)
  end
end

-- Jobs of a lane's model; of more tenants than `most`, as many are taken to be in each of the others' lines.
local function jobs_of(lane, model, most)
  local tenants, jobs = tenants_key(lane, model), 0
  local some = redis.call('ZRANGE', tenants, 0, most - 1)
  for _, tenant in ipairs(some) do
    jobs = jobs + redis.call('ZCARD', line_key({lane = lane, model = model, tenant = tenant}))
  end
  return #some > 0 and jobs * redis.call('ZCARD', tenants) / #some or 0
end
