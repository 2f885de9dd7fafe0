-- Library: jobs that wait for a time, and how many of each queue do.
--
-- They are counted as they come and go, because a lane's capacity is looked at with each job that is put into it.

-- list: where the job belongs, without the prefix; at: ms since the epoch.
local function schedule(prefix, queue, list, tag, at, text)
  if redis.call('EXISTS', prefix .. 'lanes:returns') == 0 then
    redis.call('DEL', prefix .. 'lanes:scheduled') -- whoever deleted the jobs by hand may have left their number
  end
  redis.call('ZADD', prefix .. 'lanes:returns', at, tag)
  if redis.call('HSET', prefix .. 'lanes:returned', tag, list .. '|' .. text) == 1 then
    redis.call('HINCRBY', prefix .. 'lanes:scheduled', queue, 1)
  end
end

-- Forget that a job of a queue waits.
local function unschedule(prefix, queue, tag)
  redis.call('ZREM', prefix .. 'lanes:returns', tag)
  if redis.call('HDEL', prefix .. 'lanes:returned', tag) == 1
    and redis.call('HINCRBY', prefix .. 'lanes:scheduled', queue, -1) <= 0 then
    redis.call('HDEL', prefix .. 'lanes:scheduled', queue)
  end
end

local function count_scheduled(prefix, queue)
  local count = tonumber(redis.call('HGET', prefix .. 'lanes:scheduled', queue) or '0')
  return count > 0 and redis.call('EXISTS', prefix .. 'lanes:returns') == 1 and count or 0
end
