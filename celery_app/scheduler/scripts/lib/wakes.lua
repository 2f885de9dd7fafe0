-- Library (uses clock, jobs): when a worker is to look again. Of those that wait for the same moment one is told it and the
-- others a job's refill later each, so that a crowd does not wake for one job.

-- Moments that are looked at, at most; who finds none of them free looks again as soon as anybody does.
local MOST_MOMENTS = 32

-- Microseconds between two moments at least.
local LEAST_REFILL = 2000

-- The moment for a worker, µs from now. process: its id; wait: µs until the head may go; refill: µs; longest: µs for which
-- anybody sleeps.
local function moment_for(process, head, wait, longest)
  if wait >= longest then
    return longest
  end
  local wakes = key('wakes:' .. head.lane.name .. ':' .. head.budget.name)
  local refill = math.max(LEAST_REFILL, head.seconds * SECOND)
  redis.call('ZREMRANGEBYSCORE', wakes, '-inf', text_of(NOW_US))
  local taken = redis.call('ZRANGEBYSCORE', wakes, '-inf', '+inf', 'WITHSCORES', 'LIMIT', 0, MOST_MOMENTS)
  local moment = NOW_US + wait
  for i = 1, #taken, 2 do
    if taken[i] ~= process and math.abs(tonumber(taken[i + 1]) - moment) < refill / 2 then
      moment = moment + refill
    end
  end
  if moment - NOW_US >= longest then
    redis.call('ZREM', wakes, process)
    return longest
  end
  redis.call('ZADD', wakes, text_of(moment), process)
  redis.call('PEXPIRE', wakes, 1000)
  return moment - NOW_US
end
