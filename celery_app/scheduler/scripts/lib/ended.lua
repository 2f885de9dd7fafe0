-- Library (uses clock, jobs, dead): jobs that ended in Redis, of which nobody outside has heard. Any worker works them off:
-- result, callbacks, chord, batch, event and figures; see take_ended.lua.

-- Sorted set of ids, by the time in ms from which on a worker may take them.
local ENDED = key('ended')

-- The job ends; it is in no other place. ending: "deadline", "cancelled" or "buried". With a reason it is a dead letter, too.
local function end_job(id, job, ending, reason)
  job.ending, job.reason = ending, reason
  redis.call('ZADD', ENDED, NOW, id) -- first: what is yet to be told is not dropped
  if reason ~= '' then
    dead_letter(id, job, reason)
  else
    write_job(id, job)
  end
end

-- Whether those who wait for a job are yet to be told that it has ended.
local function is_untold(id)
  return redis.call('ZSCORE', ENDED, id) and true or false
end
