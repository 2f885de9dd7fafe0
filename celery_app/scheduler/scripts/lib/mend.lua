-- Library (uses clock, jobs, lines, wakeup, scheduled, shipments, dead, ended, quota, aside): puts jobs back whose place somebody has
-- deleted, a server that evicts keys or a hand, and those that need not stand aside any more. They would else be lost for good, and nobody
-- would know.

-- Jobs that are looked at in one go, and the cursor from which on the next ones are.
local MOST_LOOKED_AT, CURSOR = 100, key('mended')

-- Whether a queued job is where a claim finds it, and its deadline.
local function is_found(id, job)
  return redis.call('ZSCORE', line_key(job), id) and is_listed(job)
    and (job.deadline == 0 or redis.call('ZSCORE', DEADLINES, id))
end

-- Whether a shipped job is where its landing finds it.
local function is_aboard(id, job)
  return job.ship == SHIPPED and redis.call('ZSCORE', SHIPPED_JOBS, id) and redis.call('ZSCORE', cargo_key(job.shipment), id)
    and redis.call('EXISTS', shipment_key(job.shipment)) == 1
end

local function mend(id, job)
  if job.claim ~= '' then
    redis.call('ZADD', key('leases'), 'NX', NOW, id)
  elseif job.ending ~= '' or job.reason ~= '' then
    if redis.call('ZSCORE', ENDED, id) or redis.call('ZSCORE', DEAD, id) then
      return
    elseif job.ending == 'deadline' or job.ending == 'cancelled' then
      redis.call('ZADD', ENDED, NOW, id) -- nobody has been told: its record would be gone
    else
      finish(id, job)
    end
  elseif LANES[job.lane] and not redis.call('ZSCORE', SCHEDULED, id) and not is_aboard(id, job) and not is_found(id, job) then
    if job.ship == SHIPPED then
      leave_shipment(id, job)
      job.ship, job.shipment = LIVE, ''
      write_job(id, job)
      count(job.lane, 'queued', 1)
    end
    enter_line(id, job)
    count(job.lane, 'queued', -1) -- it has been counted before
    wake(job.lane)
  end
end

-- Look at the next of all jobs.
local function mend_some()
  local found = redis.call('HSCAN', JOBS, redis.call('GET', CURSOR) or '0', 'COUNT', MOST_LOOKED_AT)
  for i = 1, #found[2], 2 do
    mend(found[2][i], read_job(found[2][i]))
  end
  redis.call('SET', CURSOR, found[1])
end

-- Times that jobs of a batch are moved in one go.
local MOST_ROUNDS = 4

-- Whether a batch that was set aside may go on: it was cancelled and has to end, or it may cost what its first job does.
local function may_return(lane, batch)
  local id = redis.call('ZRANGE', line_key({lane = lane, batch = batch, parked = 1}), 0, 0)[1]
  local job = id and read_job(id)
  return not job or redis.call('EXISTS', key('cancel:' .. batch)) == 1
    or not cap_reached({name = lane, rank = 1}, job, {caps = true}) -- who keeps it back besides sees to it in its line
end

-- Look at one batch of a lane that was set aside. What made room for it need not have been a job of it that went, which brings the next.
local function return_some(lane)
  local batch = redis.call('SRANDMEMBER', parked_key(lane))
  if not (batch and may_return(lane, batch)) then
    return
  end
  for _ = 1, MOST_ROUNDS do
    if unpark(lane, batch) then
      break
    end
  end
  wake(lane)
end
