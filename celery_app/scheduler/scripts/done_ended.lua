-- Done ended: those who waited for a job that ended in Redis have been told.
--
-- KEYS: none. ARGV[1] string: prefix of all keys. ARGV[2] string: id. Returns 1, or 0 if another worker has done so.

local id = ARGV[2]
if redis.call('ZREM', ENDED, id) == 0 then
  return 0
end
local job = read_job(id)
if job and job.reason == '' then
  finish(id, job)
end
return 1
