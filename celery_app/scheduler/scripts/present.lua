-- Present: a worker gives a sign of life for the lanes that it serves. Dead letters that are too old go, whether others come or
-- not, and jobs that have lost their place have one again.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: name of the worker's process, unique
-- ARGV[3] integer: ms for which the sign lasts
-- ARGV[4…] strings: the lanes' names
--
-- Returns nothing.

local kept = tonumber(ARGV[3])
for i = 4, #ARGV do
  local workers = key('workers:' .. ARGV[i])
  redis.call('ZREMRANGEBYSCORE', workers, '-inf', NOW - kept)
  redis.call('ZADD', workers, NOW, ARGV[2])
  redis.call('PEXPIRE', workers, kept)
end
trim_dead()
mend_some()
