-- Take ended: a worker takes jobs that ended in Redis and of which nobody has heard, to tell those who wait.
--
-- What was taken is taken by another if its worker does not say that it is done (done_ended.lua).
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] integer: jobs to take at most
-- ARGV[3] integer: ms after which what was taken is taken again
--
-- Returns for each: id, queue, ending, reason, ms from submission to its deadline, text (false: it has a key of its own), how
-- often it was taken.

local found = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', ENDED, '-inf', NOW, 'LIMIT', 0, ARGV[2])) do
  local job = read_job(id)
  if job then
    redis.call('ZADD', ENDED, NOW + ARGV[3], id)
    job.told = job.told + 1
    write_job(id, job)
    local text = job.large == 0 and redis.call('HGET', TEXTS, id) or false
    found[#found + 1] = {id, job.lane, job.ending, job.reason, job.deadline - job.submitted, text, job.told}
  else
    redis.call('ZREM', ENDED, id)
  end
end
return found
