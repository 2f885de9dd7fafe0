-- Present (uses message, dead): a worker gives a sign of life for the lanes that it serves. Dead letters that are too old
-- go, whether others come or not.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: name of the worker's process, unique
-- ARGV[3] integer: ms for which the sign lasts
-- ARGV[4…] strings: the lanes' names
--
-- Returns nothing.

local prefix, now, kept = ARGV[1], now_ms(), tonumber(ARGV[3])
for i = 4, #ARGV do
  local key = prefix .. 'lanes:workers:' .. ARGV[i]
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - kept)
  redis.call('ZADD', key, now, ARGV[2])
  redis.call('PEXPIRE', key, kept)
end
trim_dead(prefix, now)
