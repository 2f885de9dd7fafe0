-- Library (uses clock, jobs): keeps what nobody will work on, with the reason, for a while and up to a bound; the oldest go
-- first. Its record stays what it was, so that it can be put back at its place.

-- How long dead letters are kept, ms; how many, and how many bytes of them. A prompt in one makes it as large as its job.
local DEAD_KEPT, MOST_DEAD, MOST_DEAD_BYTES = 7 * 86400 * 1000, 10000, 256 * 1024 * 1024

-- Dead letters dropped at once: bounds the time the server is blocked; the rest follows with the next call.
local MOST_DROPPED = 100

-- Sorted set of ids by the time of death, and what they sum up to: "bytes", "dropped", "<lane>:dead".
local DEAD, DEAD_TOTALS = key('dead'), key('dead_totals')

-- Take a job out of the dead letters; returns whether it was there.
local function leave_dead(id, job)
  if redis.call('ZREM', DEAD, id) == 0 then
    return false
  end
  redis.call('HINCRBY', DEAD_TOTALS, job.lane .. ':dead', -1)
  redis.call('HINCRBY', DEAD_TOTALS, 'bytes', -bytes_of(id, job))
  return true
end

local function oldest_beyond()
  local oldest = redis.call('ZRANGE', DEAD, 0, 0, 'WITHSCORES')
  if not oldest[1] then
    return nil
  end
  local number, bytes = redis.call('ZCARD', DEAD), tonumber(redis.call('HGET', DEAD_TOTALS, 'bytes') or '0')
  local beyond = number > MOST_DEAD or number > 1 and bytes > MOST_DEAD_BYTES or tonumber(oldest[2]) < NOW - DEAD_KEPT
  return beyond and oldest[1] or nil
end

-- Drop the oldest of what is too old or too much.
local function trim_dead()
  for _ = 1, MOST_DROPPED do
    local id = oldest_beyond()
    if not id then
      return
    end
    local job = read_job(id)
    if job then
      leave_dead(id, job)
      finish(id, job)
    else
      redis.call('ZREM', DEAD, id)
    end
    redis.call('HINCRBY', DEAD_TOTALS, 'dropped', 1)
  end
end

-- Keep a job that is in no other place among the dead letters.
local function bury(id, job, reason)
  if redis.call('EXISTS', DEAD) == 0 then
    redis.call('DEL', DEAD_TOTALS) -- somebody has deleted them all
  end
  job.reason, job.deaths, job.suspect = reason, 0, 0
  write_job(id, job)
  release_name(job)
  redis.call('ZADD', DEAD, NOW, id)
  redis.call('HINCRBY', DEAD_TOTALS, job.lane .. ':dead', 1)
  redis.call('HINCRBY', DEAD_TOTALS, 'bytes', bytes_of(id, job))
  trim_dead()
end
