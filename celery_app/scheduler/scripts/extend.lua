-- Extend: a worker gives a sign of life for what it holds; whatever was abandoned by others comes back.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] integer: ms after which a lease without a sign of life is over; 0: leave leases alone
-- ARGV[3…] pairs: id, token of its claim
--
-- Returns the ids that are no longer held under their claims.

local lost = {}
-- A server out of memory refuses ZADD as a script's first write, not as a later one; and a worker that cannot extend
-- its leases would have all of its jobs done twice.
redis.call('ZREM', LEASES, '')
for i = 3, #ARGV, 2 do
  if held(ARGV[i], ARGV[i + 1]) then
    redis.call('ZADD', LEASES, NOW, ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
reap(tonumber(ARGV[2]))
wake_due()
end_overdue()
return lost
