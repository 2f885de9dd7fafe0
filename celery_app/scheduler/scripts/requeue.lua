-- Requeue: a job returns to its place in its line, now or later; the waiting is done here.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: id
-- ARGV[3] string: token of the claim
-- ARGV[4] integer: ms from now before which the job must not start again
-- ARGV[5] integer: number of tries from now on; -1: as it is
-- ARGV[6] integer: 1 if this delivery went wrong, so that the job is one step nearer to being dead-lettered
-- ARGV[7] integer: 1 if it goes to the back of its queue; for queues that are no lanes
-- ARGV[8…] pairs: further facts and what they are from now on, as in lib/jobs.lua
--
-- Returns 1, or 0 if the job is no longer held under this claim; nothing is doubled then.

local id, delay, tries = ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5])
local job = take_back(id, ARGV[3])
if not job then
  return 0
end
job.tries = tries >= 0 and tries or job.tries
for i = 8, #ARGV, 2 do
  job[ARGV[i]] = type(UNSAID[ARGV[i]]) == 'number' and tonumber(ARGV[i + 1]) or ARGV[i + 1]
end
job.deaths = ARGV[6] == '1' and job.deaths + 1 or 0
if ARGV[6] ~= '1' then
  job.suspect = 0
elseif job.deaths >= MOST_DEATHS then
  end_job(id, job, 'buried', 'rejected ' .. job.deaths .. ' times, or its process died')
  return 1
end
redis.call('DEL', key('ended:' .. job.task_id)) -- it goes on, whatever was decided
if job.list ~= '' then
  put_back(id, job, ARGV[7] == '1' and 'LPUSH' or 'RPUSH')
else
  stand_again(id, job, delay)
end
return 1
