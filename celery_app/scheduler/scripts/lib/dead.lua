-- Library (uses clock, jobs): keeps what nobody will work on, with the reason, for a while and up to a bound; the oldest go
-- first. Its record stays what it was, so that it can be put back at its place.

-- How long dead letters are kept, ms; how many, and how many bytes of them. A prompt in one makes it as large as its job.
local DEAD_KEPT, MOST_DEAD, MOST_DEAD_BYTES = 7 * 86400 * 1000, 10000, 256 * 1024 * 1024

-- Dead letters dropped at once: bounds the time the server is blocked; the rest follows with the next call.
local MOST_DROPPED = 100

-- Sorted set of ids by the time of death, and what they sum up to: "bytes", "dropped", "<lane>:dead".
local DEAD, DEAD_TOTALS = key('dead'), key('dead_totals')

-- Take a letter out. Returns whether it was one.
local function leave_dead(id, job)
  if redis.call('ZREM', DEAD, id) == 0 then
    return false
  end
  redis.call('HINCRBY', DEAD_TOTALS, job.lane .. ':dead', -1)
  redis.call('HINCRBY', DEAD_TOTALS, 'bytes', -bytes_of(id, job))
  return true
end

-- Whether a letter, the oldest that may go, is too old or too much.
local function is_beyond(died)
  local number, bytes = redis.call('ZCARD', DEAD), tonumber(redis.call('HGET', DEAD_TOTALS, 'bytes') or '0')
  return number > MOST_DEAD or number > 1 and bytes > MOST_DEAD_BYTES or died < NOW - DEAD_KEPT
end

local function drop_dead(id)
  local job = read_job(id)
  if job then
    leave_dead(id, job)
    finish(id, job)
  else
    redis.call('ZREM', DEAD, id)
  end
  redis.call('HINCRBY', DEAD_TOTALS, 'dropped', 1)
end

-- Drop the oldest of what is too old or too much, but for those of which is yet to be told (ended.lua).
local function trim_dead()
  local oldest = redis.call('ZRANGE', DEAD, 0, MOST_DROPPED - 1, 'WITHSCORES')
  for i = 1, #oldest, 2 do
    if not is_beyond(tonumber(oldest[i + 1])) then
      return
    elseif not redis.call('ZSCORE', key('ended'), oldest[i]) then
      drop_dead(oldest[i])
    end
  end
end

-- Keep a job that is in no other place among the dead letters.
local function dead_letter(id, job, reason)
  if redis.call('EXISTS', DEAD) == 0 then
    redis.call('DEL', DEAD_TOTALS) -- somebody has deleted them all
  end
  if job.ship ~= LIVE then
    end_shipping(id, job) -- if it is replayed it makes a call
  end
  job.reason, job.deaths, job.suspect = reason, 0, 0
  write_job(id, job)
  release_name(job)
  redis.call('ZADD', DEAD, NOW, id)
  redis.call('HINCRBY', DEAD_TOTALS, job.lane .. ':dead', 1)
  redis.call('HINCRBY', DEAD_TOTALS, 'bytes', bytes_of(id, job))
  trim_dead()
end
