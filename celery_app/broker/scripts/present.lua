-- Present (uses message, dead): a worker gives a sign of life for the lanes that it serves, and learns what nobody has
-- told. Dead letters that are too old go, whether others come or not.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: name of the worker's process, unique
-- ARGV[3] integer: ms for which the sign lasts
-- ARGV[4] integer: burials to take from those that wait to be told, at most
-- ARGV[5…] strings: the lanes' names
--
-- Returns the burials, as dead.lua wrote them.

local prefix, now, kept = ARGV[1], now_ms(), tonumber(ARGV[3])
for i = 5, #ARGV do
  local key = prefix .. 'lanes:workers:' .. ARGV[i]
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - kept)
  redis.call('ZADD', key, now, ARGV[2])
  redis.call('PEXPIRE', key, kept)
end
trim_dead(prefix, now)
return redis.call('LPOP', prefix .. 'lanes:untold', ARGV[4]) or {}
