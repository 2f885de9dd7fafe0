-- Put: add a job to a queue unless the queue is full, and wake a worker. Exact under any number of publishers.
--
-- KEYS[1…n] lists: of the queue, one for each priority step
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: queue
-- ARGV[3] integer: which of KEYS takes the job, from 1
-- ARGV[4] integer: capacity, jobs in all lists together; -1: none
-- ARGV[5] integer: ms after which the queue is gone if nothing happens to it; 0: never
-- ARGV[6] integer: ms since the epoch before which the job must not start; 0: at once
-- ARGV[7] string: delivery tag
-- ARGV[8] string: the job
-- ARGV[9] string: key of the stream that the job's readers wait at; empty: it has none
-- ARGV[10] integer: seconds that an empty stream is kept
--
-- Returns -1 when the job is in its place, else the number of jobs queued, and nothing has been written.

local prefix, queue, list, capacity, expires = ARGV[1], ARGV[2], KEYS[tonumber(ARGV[3])], tonumber(ARGV[4]), tonumber(ARGV[5])
local not_before = tonumber(ARGV[6])
if capacity >= 0 then
  local depth = tonumber(redis.call('HGET', prefix .. 'lanes:aside_depth', queue) or '0')
  for _, key in ipairs(KEYS) do
    depth = depth + redis.call('LLEN', key)
  end
  if depth >= capacity then
    return depth
  end
end
if ARGV[9] ~= '' and redis.call('EXISTS', ARGV[9]) == 0 then
  -- Empty: it tells a job whose answer has not begun from an id that somebody made up.
  redis.call('XADD', ARGV[9], 'MAXLEN', 0, '*', 'queued', '')
  redis.call('EXPIRE', ARGV[9], ARGV[10])
end
if not_before > 0 then
  redis.call('ZADD', prefix .. 'lanes:returns', not_before, ARGV[7])
  redis.call('HSET', prefix .. 'lanes:returned', ARGV[7], string.sub(list, #prefix + 1) .. '|' .. ARGV[8])
  return -1
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
return -1
