-- Explain: why a job, or the heads of a lane, wait; by the code that decides, which takes nothing here.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: id of a job; '': of each lane, the head that waits for the shortest time
-- ARGV[3…] the lanes, as claim.lua has them
--
-- Returns for each, an array: lane, state (queued, scheduled, running, ended, dead), what is short (a dimension, calls,
-- closed, '': nothing but a slot), model, µs until its head may go, its place in its line from 1, jobs in the lane, µs that a
-- job like it takes of the budget, ms until it is due, 1 if a worker serves the lane. Nothing for a job that nobody knows.

local lanes = read_lanes(3)

local function row(lane, state, short, model, wait, place, refill, due)
  return {lane.name, state, short, model, math.ceil(wait), place, depth_of(lane.name), math.ceil(refill), due,
    has_worker(lane) and 1 or 0}
end

-- What the head of a lane's model waits for. A lane without a worker is looked at as if it had one.
local function shortage_of(lane, model)
  local found_wait, found_short = 0, ''
  lane.has_worker = true
  walk(lanes, read_waiters(lanes), function(head, wait, short)
    if head.lane == lane and head.model == model and not head.slot then
      found_wait, found_short = wait, wait > 0 and short or ''
      return true
    end
    return false
  end)
  lane.has_worker = nil
  return found_wait, found_short
end

local function seconds_for(lane, model)
  local head = lane.heads[model]
  return head and head.cost and head.seconds or 0
end

local function place_of(id, job)
  if redis.call('ZSCORE', DEAD, id) then
    return 'dead'
  elseif job.claim ~= '' then
    return 'running'
  elseif redis.call('ZSCORE', key('scheduled'), id) then
    return 'scheduled'
  elseif redis.call('ZSCORE', line_key(job), id) then
    return 'queued'
  end
  return 'ended'
end

-- Of several messages of a task, one that has not ended.
local function record_of(task_id)
  local records = records_of(task_id)
  for _, record in ipairs(records) do
    if record.job.ending == '' and record.job.reason == '' then
      return record.id, record.job
    end
  end
  return task_id, records[1] and records[1].job
end

local function explain_job(task_id)
  local id, job = record_of(task_id)
  local lane = job and lanes[job.lane]
  if not lane then
    return {}
  end
  local state = place_of(id, job)
  local due = state == 'scheduled' and math.max(0, redis.call('ZSCORE', key('scheduled'), id) - NOW) or 0
  if state ~= 'queued' then
    return {row(lane, state, '', job.model, 0, 0, 0, due)}
  end
  local wait, short = shortage_of(lane, job.model)
  local place = redis.call('ZRANK', line_key(job), id) + 1
  return {row(lane, state, short, job.model, wait, place, seconds_for(lane, job.model) * SECOND, 0)}
end

local function explain_lanes()
  local rows = {}
  for _, lane in ipairs(lanes) do
    local best
    for model in pairs(lane.heads) do
      local wait, short = shortage_of(lane, model)
      if not best or wait < best[5] then
        best = row(lane, 'queued', short, model, wait, 1, seconds_for(lane, model) * SECOND, 0)
      end
    end
    rows[#rows + 1] = best or row(lane, '', '', '', 0, 0, 0, 0)
  end
  return rows
end

for _, lane in ipairs(lanes) do
  read_heads(lane)
end
return ARGV[2] ~= '' and explain_job(ARGV[2]) or explain_lanes()
