-- Cancel: decide that a job is cancelled, unless it has ended by itself; out of its line it ends at once.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: id of the job's task
-- ARGV[3] integer: seconds for which the decision is remembered
--
-- Returns 1 if it is cancelled, now or since before; 0 if it had ended.

local id = ARGV[2]
if redis.call('EXISTS', key('ended:' .. id)) == 1 then
  return 0
end
redis.call('SET', key('cancel:' .. id), 1, 'EX', ARGV[3])
local job = read_job(id)
if job and (leave_line(id, job) or unschedule(id, job)) then
  if job.deadline > 0 then
    redis.call('ZREM', DEADLINES, id)
  end
  end_job(id, job, 'cancelled', '')
end
return 1
