-- List dead: the dead letters, the newest first.
--
-- KEYS: none. ARGV[1] string: prefix of all keys. ARGV[2] integer: how many at most.
-- Returns for each: id, lane, task, task id, reason, ms since it died, bytes of its message.

local found = {}
for _, id in ipairs(redis.call('ZREVRANGE', DEAD, 0, ARGV[2] - 1)) do
  local job = read_job(id)
  if job then
    local age = NOW - tonumber(redis.call('ZSCORE', DEAD, id))
    found[#found + 1] = {id, job.lane, job.task, job.task_id, job.reason, age, bytes_of(id, job)}
  end
end
return found
