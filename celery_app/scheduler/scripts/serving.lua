-- Serving: count the workers that serve each lane.
--
-- KEYS: none. ARGV[1] string: prefix of all keys. ARGV[2…] strings: the lanes' names. Returns the counts, in their order.

local counts = {}
for i = 2, #ARGV do
  counts[i - 1] = workers_of(ARGV[i])
end
return counts
