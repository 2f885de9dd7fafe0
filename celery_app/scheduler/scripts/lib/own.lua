-- Library (uses clock, jobs, wakeup): messages of a project's own queues, which a worker takes beside its lanes. They are
-- kombu's lists and stay so; while one is held it has a record like a job.

-- Take the next message of a list: its id and record, or nil.
local function take_own(queue, list)
  local text = redis.call('RPOP', ARGV[1] .. list)
  if not text then
    return nil
  end
  local id
  repeat
    id = 'own-' .. redis.call('INCR', key('own'))
  until redis.call('HEXISTS', JOBS, id) == 0 -- a producer may call a job so
  redis.call('HSET', TEXTS, id, text)
  return id, new_job({lane = queue, list = list, submitted = NOW})
end

-- Put one back; command: RPUSH for the front of its list, LPUSH for the back.
local function put_back(id, job, command)
  local text = redis.call('HGET', TEXTS, id)
  finish(id, job)
  if text then
    redis.call(command, ARGV[1] .. job.list, text)
    wake(job.lane)
  end
end
