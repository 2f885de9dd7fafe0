-- Serving: count the workers that serve each lane.
--
-- KEYS: none. ARGV[1] string: prefix of all keys. ARGV[2] integer: ms for which a sign of life lasts.
-- ARGV[3…] strings: the lanes' names. Returns the counts, in their order.

local counts = {}
for i = 3, #ARGV do
  counts[i - 2] = redis.call('ZCOUNT', key('workers:' .. ARGV[i]), '(' .. string.format('%.0f', NOW - ARGV[2]), '+inf')
end
return counts
