-- Put: add a job to a queue unless the queue is full, and wake a worker. Exact under any number of publishers.
-- Repeating it with the same token adds nothing, so a publisher may do so when an answer was lost.
--
-- KEYS[1…n] lists: of the queue, one for each priority step
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: queue
-- ARGV[3] integer: which of KEYS takes the job, from 1
-- ARGV[4] integer: capacity, jobs in all lists and scheduled together; -1: none
-- ARGV[5] integer: ms after which the queue is gone if nothing happens to it; 0: never
-- ARGV[6] integer: ms since the epoch before which the job must not start; 0: at once
-- ARGV[7] string: delivery tag
-- ARGV[8] string: the job
-- ARGV[9] string: key that tells this submission from all others; empty: nobody will repeat it
-- ARGV[10] integer: seconds for which that is remembered
-- ARGV[11] string: key of the stream that the job's readers wait at; empty: it has none
-- ARGV[12] integer: seconds that an empty stream is kept
--
-- Returns -1 when the job is in its place, else the number of jobs queued or scheduled, and nothing has been written.

local prefix, queue, list, capacity, expires = ARGV[1], ARGV[2], KEYS[tonumber(ARGV[3])], tonumber(ARGV[4]), tonumber(ARGV[5])
local not_before, published = tonumber(ARGV[6]), ARGV[9]
if published ~= '' and redis.call('EXISTS', published) == 1 then
  return -1
end
if capacity >= 0 then
  local depth = depth_of(prefix, queue, KEYS, #KEYS)
  if depth >= capacity then
    return depth
  end
end
-- Last of all: a token without its job would have a repetition lose the job.
local function remember()
  if published ~= '' then
    redis.call('SET', published, '', 'EX', ARGV[10])
  end
  return -1
end
if ARGV[11] ~= '' and redis.call('EXISTS', ARGV[11]) == 0 then
  -- Empty: it tells a job whose answer has not begun from an id that somebody made up.
  redis.call('XADD', ARGV[11], 'MAXLEN', 0, '*', 'queued', '')
  redis.call('EXPIRE', ARGV[11], ARGV[12])
end
if not_before > 0 then
  schedule(prefix, queue, string.sub(list, #prefix + 1), ARGV[7], not_before, ARGV[8])
  return remember()
end
redis.call('LPUSH', list, ARGV[8])
if capacity >= 0 then
  note_models(prefix, string.sub(list, #prefix + 1), ARGV, 8, 8)
end
if expires > 0 then
  for _, key in ipairs(KEYS) do
    redis.call('PEXPIRE', key, expires)
  end
end
ring(prefix, queue)
return remember()
