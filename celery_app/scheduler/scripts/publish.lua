-- Publish: a job enters its line, or waits for its time, unless its lane is full. Exact under any number of publishers.
-- Repeating it with the same token adds nothing, so a publisher may do so when an answer was lost.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: lane
-- ARGV[3] integer: capacity, jobs queued or scheduled, unless operators have set another; -1: none
-- ARGV[4] string: token that tells this submission from all others; empty: nobody will repeat it
-- ARGV[5] integer: seconds for which that is remembered
-- ARGV[6] string: key, without the prefix, of the stream that the job's readers wait at; empty: it has none
-- ARGV[7] integer: seconds that an empty stream is kept
-- ARGV[8] string: channel to publish the job's submission on; empty: nobody is told
-- ARGV[9] string: what is published there
-- ARGV[10…] the job, as lib/enter.lua has it
--
-- Returns an array. 0: the job is in its place, or was before. 1, the number of jobs queued or scheduled, and the capacity: the
-- lane is full. 2 and a task id: there is such a job already, by its unique name. 3 and who: somebody drains the lane, which takes
-- only jobs that know of no capacity. Nothing has been written but for 0.

local lane, capacity = ARGV[2], tonumber(ARGV[3])
local published = ARGV[4] ~= '' and key('published:' .. lane .. ':' .. ARGV[4])
if published and redis.call('EXISTS', published) == 1 then
  return {0}
end
local id, job, text, delay = job_in(10, lane)
local other = name_taken(job)
if other then
  return {2, other}
end
if capacity >= 0 and controls().draining[lane] then
  return {3, controls().draining[lane]}
end
capacity = capacity >= 0 and set_of(lane).capacity or capacity
local depth = capacity >= 0 and depth_of(lane) or -1
if depth >= capacity and capacity >= 0 then
  return {1, depth, capacity}
end
local stream = ARGV[6] ~= '' and ARGV[1] .. ARGV[6]
if stream and redis.call('EXISTS', stream) == 0 then
  -- Empty: it tells a job whose answer has not begun from an id that somebody made up.
  redis.call('XADD', stream, 'MAXLEN', 0, '*', 'queued', '')
  redis.call('EXPIRE', stream, ARGV[7])
end
enter(id, job, text, delay, numbers_for(1) + 1)
if delay == 0 then
  wake(lane)
end
if published then
  redis.call('SET', published, '', 'EX', ARGV[5]) -- last of all: a token without its job would have a repetition lose the job
end
if ARGV[8] ~= '' then
  redis.pcall('PUBLISH', ARGV[8], ARGV[9]) -- whoever may not publish may submit all the same
end
return {0}
