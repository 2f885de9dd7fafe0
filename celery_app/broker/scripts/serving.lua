-- Serving (uses message): count the workers that serve each lane.
--
-- KEYS: none. ARGV[1] string: prefix of all keys. ARGV[2] integer: ms for which a sign of life lasts.
-- ARGV[3…] strings: the lanes' names. Returns the counts, in their order.

local since, counts = now_ms() - tonumber(ARGV[2]), {}
for i = 3, #ARGV do
  counts[i - 2] = redis.call('ZCOUNT', ARGV[1] .. 'lanes:workers:' .. ARGV[i], '(' .. since, '+inf')
end
return counts
