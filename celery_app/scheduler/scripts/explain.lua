-- Explain: why a job, or the heads of a lane, wait; by the code that decides, which takes nothing here.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: id of a job; '': of each lane, the head that waits for the shortest time
-- ARGV[3] string: of each lane, most important first, seconds that a call takes, with spaces between; '' for the heads
-- ARGV[4…] the lanes, as claim.lua has them
--
-- Returns for each, an array: lane, state (queued, scheduled, running, ended, dead), what is short (a dimension, calls,
-- overloaded, closed, paused, prefix, cap, a limit of the day, '': nothing but a slot), model, µs until its head may go (paused: 0 if it is until somebody resumes it), jobs in
-- the lane, ms until it is due, 1 if a worker serves the lane; then of a job its place among those of its model from 1, and µs
-- until it leaves if all goes on as it does (-1: nobody knows); then which quota is used up, as lib/quota.lua tells it, or ''.
-- Nothing for a job that nobody knows.

local lanes = read_lanes(4)

local function row(lane, state, short, model, wait, due, place, expected, told)
  return {lane.name, state, short, model, math.ceil(wait), depth_of(lane.name), due, has_worker(lane) and 1 or 0,
    place or 0, expected or -1, told or ''}
end

local function lengths()
  local seconds = {}
  for number in string.gmatch(ARGV[3], '%S+') do
    seconds[#seconds + 1] = tonumber(number)
  end
  return seconds
end

-- What a head is short of: of requests, too, where the API is overloaded and all go slowly for a while, whatever the limit.
local function shortage_of(head, short)
  local slowed = short == 'requests' and head.budget.state.overload_rate
  return slowed and slowed <= head.budget.buckets.requests.rate and 'overloaded' or short
end

-- Note at each head of a lane with a worker, or of the one that is named, what it waits for.
local function note_waits(waiters, only)
  walk(lanes, waiters, function(head, wait, short)
    if not head.slot and (not only or head.lane == only) then
      head.wait, head.short = wait, wait > 0 and shortage_of(head, short) or ''
    end
    return false
  end)
end

-- What is paused, or kept back by a cap, waits for the end of that.
local function note_pause(head)
  if head.pause then
    head.wait, head.short = head.pause.till > 0 and (head.pause.till - NOW) * 1000 or 0, head.pause.told and 'cap' or 'paused'
    head.told = head.pause.told
  end
end

local function note_pauses(lane)
  for _, head in pairs(lane.heads) do
    note_pause(head)
  end
end

-- A lane without a worker is looked at as if it had one; nobody else leaves room for it.
local function note_all_waits()
  local waiters = read_waiters(lanes)
  note_waits(waiters)
  for _, lane in ipairs(lanes) do
    note_pauses(lane)
    if not has_worker(lane) and next(lane.heads) then
      lane.has_worker = true
      note_waits(waiters, lane)
      lane.has_worker = false
    end
  end
  return waiters
end

local function place_of(id, job)
  if redis.call('ZSCORE', DEAD, id) then
    return 'dead'
  elseif job.claim ~= '' then
    return 'running'
  elseif redis.call('ZSCORE', SCHEDULED, id) then
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
  local due = state == 'scheduled' and math.max(0, redis.call('ZSCORE', SCHEDULED, id) - NOW) or 0
  if state ~= 'queued' then
    return {row(lane, state, '', job.model, 0, due)}
  end
  local head = lane.heads[job.model] or read_head(lane, job.model) -- of many models only some were looked at
  lane.heads[job.model] = head
  local waiters = note_all_waits()
  local own = weighed(lane, job.model, {id = id, job = job})
  if own.pause and own.pause.told or not head then
    note_pause(own)
    return {row(lane, state, own.short or '', job.model, own.wait or 0, 0, 0, -1, own.told)}
  end
  local for_first = not head.pause and wait_for_first(budget_of(lane.name, job.model), job) or 0
  if for_first > 0 then
    head.short, head.wait = 'prefix', for_first
  end
  local place, expected = forecast(lanes, head, job, waiters, lengths())
  return {row(lane, state, head.short or '', job.model, head.wait or 0, 0, place, expected, head.told)}
end

-- Whether a head may go before another one.
local function is_sooner(head, other)
  if (head.pause == nil) ~= (other.pause == nil) then
    return head.pause == nil
  end
  return (head.wait or 0) < (other.wait or 0)
end

-- One of the jobs that were set aside, where a lane has no others.
local function parked_head(lane)
  local batch = redis.call('SRANDMEMBER', parked_key(lane.name))
  local id = batch and redis.call('ZRANGE', line_key({lane = lane.name, batch = batch, parked = 1}), 0, 0)[1]
  local job = id and read_job(id)
  local head = job and weighed(lane, job.model, {id = id, job = job})
  if head then
    note_pause(head)
  end
  return head
end

local function explain_lanes()
  local rows = {}
  note_all_waits()
  for _, lane in ipairs(lanes) do
    local best
    for _, head in pairs(lane.heads) do
      if not best or is_sooner(head, best) then
        best = head
      end
    end
    best = best or parked_head(lane)
    rows[#rows + 1] = best and row(lane, 'queued', best.short or '', best.model, best.wait or 0, 0, 0, -1, best.told)
      or row(lane, '', '', '', 0, 0)
  end
  return rows
end

for _, lane in ipairs(lanes) do
  read_heads(lane)
end
return ARGV[2] ~= '' and explain_job(ARGV[2]) or explain_lanes()
