-- Library (uses clock, jobs, lines, wakeup): jobs that wait for a time. They keep their number, and so their place.

local SCHEDULED = key('scheduled')

-- Jobs moved at once: bounds the time the server is blocked; the rest follows with the next call.
local MOST_DUE = 200

local function schedule(id, job, delay)
  redis.call('ZADD', SCHEDULED, NOW + delay, id)
  count(job.lane, 'scheduled', 1)
end

local function unschedule(id, job)
  if redis.call('ZREM', SCHEDULED, id) == 0 then
    return false
  end
  count(job.lane, 'scheduled', -1)
  return true
end

-- Put those whose time has come into their lines.
local function wake_due()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', SCHEDULED, '-inf', NOW, 'LIMIT', 0, MOST_DUE)) do
    local job = read_job(id)
    if job then
      unschedule(id, job)
      enter_line(id, job)
      wake(job.lane)
    else
      redis.call('ZREM', SCHEDULED, id)
    end
  end
end
