-- Ship: the next jobs of a lane and model that may be shipped enter a shipment. Repeating a piece takes nothing twice.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: lane. ARGV[3] string: token of its steersman. ARGV[4] string: id of the shipment, which has begun
-- ARGV[5] string: model
-- ARGV[6] integer: number of this piece, from 1
-- ARGV[7] integer: jobs that are looked at, at most, so that the server is not blocked for long
-- ARGV[8] integer: jobs that the shipment has at most. ARGV[9] integer: bytes of their texts, likewise
-- ARGV[10] integer: ms that a job must be able to wait
-- ARGV[11] integer: rank of the lane, 1 for the most important. ARGV[12] number: part of its price that a job costs in a batch
--
-- Returns the jobs that are in the shipment, and 1 if there may be more for it; nothing if another worker is the steersman. A lane
-- that is paused or drained ships nothing, and a job that a cap on money covers which is used up waits until it is not.

local lane, id_of_shipment, model, piece = ARGV[2], ARGV[4], ARGV[5], tonumber(ARGV[6])
local shipment, index = shipment_key(id_of_shipment), may_ship_key(lane, model)
if not steers(lane, ARGV[3]) or redis.call('EXISTS', shipment) == 0 then
  return {}
end
local known = redis.call('HMGET', shipment, 'pieces', 'jobs', 'bytes', 'deadline', 'begun')
local jobs, bytes, deadline = tonumber(known[2] or 0), tonumber(known[3] or 0), tonumber(known[4] or 0)

local is_full = false
local place = {name = lane, rank = tonumber(ARGV[11])}

-- It can wait no longer: it goes live, from its place.
local function send_live(id, job)
  if unschedule(id, job) then
    job.ship = LIVE
    write_job(id, job)
    enter_line(id, job)
    wake(job.lane)
  end
end

-- It stays; those that other caps cover, or none, come before it.
local function put_last(id, job)
  redis.call('ZADD', index, 'XX', BEHIND + NOW, id)
end

local function cancel(id, job)
  leave_waiting(id, lane, model)
  if leave_line(id, job) or unschedule(id, job) then
    end_job(id, job, 'cancelled', '')
  end
end

local function take(id, job)
  local fare = math.floor(job.usd * tonumber(ARGV[12]))
  if is_over_cap(place, job, fare) then
    put_last(id, job)
    return
  end
  local size = bytes_of(id, job)
  if jobs > 0 and bytes + size > tonumber(ARGV[9]) then
    is_full = true
    return
  end
  leave_waiting(id, lane, model)
  if job.deadline > 0 and job.deadline - NOW < tonumber(ARGV[10]) or size > tonumber(ARGV[9]) then
    send_live(id, job)
  elseif leave_line(id, job) or unschedule(id, job) then
    jobs, bytes = jobs + 1, bytes + size
    deadline = job.deadline > 0 and (deadline == 0 or job.deadline < deadline) and job.deadline or deadline
    take_fare(place, job, fare)
    enter_shipment(id, job, id_of_shipment, jobs)
  end
end

if tonumber(known[1] or 0) >= piece then
  return {jobs, 1}
elseif pause_of(lane, model) or controls().draining[lane] then
  return {jobs, 0}
end
-- What a cap keeps back since this shipment has begun was looked at for it.
local last = string.format('(%.0f', BEHIND + tonumber(known[5] or 0))
local ids = redis.call('ZRANGEBYSCORE', index, '-inf', last, 'LIMIT', 0, math.min(tonumber(ARGV[7]), tonumber(ARGV[8]) - jobs))
for _, id in ipairs(jobs < tonumber(ARGV[8]) and ids or {}) do
  local job = read_job(id)
  if is_full then
    break
  elseif not (job and job.ship == MAY_SHIP and job.out == 0 and job.claim == '') then
    leave_waiting(id, lane, model) -- it is gone, or goes live already
  elseif is_marked(job.task_id, job.batch) then
    cancel(id, job)
  else
    take(id, job)
  end
end
is_full = is_full or redis.call('ZCOUNT', index, '-inf', last) == 0
redis.call('HSET', shipment, 'pieces', piece, 'jobs', jobs, 'bytes', bytes, 'deadline', deadline)
return {jobs, (is_full or jobs >= tonumber(ARGV[8])) and 0 or 1}
