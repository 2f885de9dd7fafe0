-- Renew: say that calls are still made, by the process that makes them.
--
-- KEYS[1] hash: the budget
-- KEYS[2] sorted set: its calls in flight, ticket id -> end of the lease, µs since the epoch
-- ARGV[1] integer: ms after which the calls are taken for dead
-- ARGV[2…] strings: ids of their tickets
--
-- Returns the number of calls that are known. What has been settled meanwhile stays settled; a lease that was over begins
-- anew.

local now = now_us()
local state, known = recall(KEYS[1], CONTACT), 0
contact(state, now)
local ends = text_of(now + tonumber(ARGV[1]) * 1000)
for i = 2, #ARGV do
  redis.call('ZADD', KEYS[2], 'XX', ends, ARGV[i])
  known = known + (redis.call('ZSCORE', KEYS[2], ARGV[i]) and 1 or 0)
end
remember(KEYS[1], state, CONTACT)
return known
