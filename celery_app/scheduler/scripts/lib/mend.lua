-- Library (uses clock, jobs, lines, wakeup, scheduled, dead, ended): puts jobs back whose place somebody has deleted, a server
-- that evicts keys or a hand. They would else be lost for good, and nobody would know.

-- Jobs that are looked at in one go, and the cursor from which on the next ones are.
local MOST_LOOKED_AT, CURSOR = 100, key('mended')

-- Whether a queued job is where a claim finds it, and its deadline.
local function is_found(id, job)
  return redis.call('ZSCORE', line_key(job), id) and is_listed(job)
    and (job.deadline == 0 or redis.call('ZSCORE', DEADLINES, id))
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
  elseif LANES[job.lane] and not redis.call('ZSCORE', SCHEDULED, id) and not is_found(id, job) then
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
