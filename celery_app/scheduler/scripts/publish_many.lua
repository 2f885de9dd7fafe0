-- Publish many: the next jobs of a batch enter their lines, as many as there is room for. Repeating it with the same arguments
-- adds none twice, so a publisher may do so when an answer was lost.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: lane
-- ARGV[3] integer: capacity, jobs queued or scheduled, unless operators have set another
-- ARGV[4] string: key of the batch's hash, without the prefix; its field `queued` counts its jobs that were put into their
--   places, `placed` also those that were left out because there is such a job already
-- ARGV[5] integer: seconds after which the batch is forgotten if nothing happens to it
-- ARGV[6] integer: number of the first of these jobs within its batch, from 0
-- ARGV[7…] the jobs, as lib/enter.lua has them
--
-- Returns how many of these jobs are in their places now, the number of jobs that were queued or scheduled before, the lane's
-- capacity, who drains it (then it takes none) or '', and of those left out: their number among these, from 0, and the task id
-- that has their name, and so on.

local lane, first, batch = ARGV[2], tonumber(ARGV[6]), ARGV[1] .. ARGV[4]
local capacity, drainer = set_of(lane).capacity or tonumber(ARGV[3]), controls().draining[lane]
local jobs = (#ARGV - 6) / FIELDS
local depth = depth_of(lane)
local there = math.max(0, tonumber(redis.call('HGET', batch, 'placed') or '0') - first)
local reply = {0, depth, capacity, drainer or ''}
local done, entered, number = 0, 0, numbers_for(jobs)
for i = 1, jobs do
  local id, job, text, delay = job_in(7 + (i - 1) * FIELDS, lane)
  local other = name_taken(job)
  if other and (i > there or other ~= job.task_id) then
    reply[#reply + 1] = i - 1
    reply[#reply + 1] = other
  elseif i > there and (depth >= capacity or drainer) then
    break
  elseif i > there then
    enter(id, job, text, delay, number + i)
    depth, entered = depth + 1, entered + 1
  end
  done = i
end
if done > there then
  redis.call('HSET', batch, 'placed', first + done)
  redis.call('HINCRBY', batch, 'queued', entered)
  redis.call('EXPIRE', batch, ARGV[5])
end
if entered > 0 then
  wake(lane)
end
reply[1] = done
return reply
