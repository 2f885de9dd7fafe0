-- Extend: a worker gives a sign of life for what it holds; whatever was abandoned by others comes back.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: separator between a queue's name and a priority step
-- ARGV[3] integer: ms after which a lease without a sign of life has expired; 0: leave leases alone
-- ARGV[4] integer: deliveries after which a job that was never finished is buried
-- ARGV[5…] pairs: delivery tag, token of its claim
--
-- Returns the tags that are no longer held under their claims.

local prefix, separator = ARGV[1], ARGV[2]
local now, lost = now_ms(), {}
-- A server out of memory refuses ZADD as a script's first write, not as a later one; and a worker that cannot extend
-- its leases would have all of its jobs done twice.
redis.call('ZREM', prefix .. 'lanes:leases', '')
for i = 5, #ARGV, 2 do
  if held_from(prefix, ARGV[i], ARGV[i + 1]) then
    redis.call('ZADD', prefix .. 'lanes:leases', now, ARGV[i])
    redis.call('ZADD', prefix .. 'unacked_index', now / 1000, ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
sweep_up(prefix, separator, now, tonumber(ARGV[3]), tonumber(ARGV[4]))
return lost
