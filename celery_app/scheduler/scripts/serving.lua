-- Serving: count the workers that serve each lane, and their slots.
--
-- KEYS: none. ARGV[1] string: prefix of all keys. ARGV[2…] strings: the lanes' names. Returns for each lane, in their order, and
-- then for all of them together, an array: workers, slots. A worker of several lanes has its slots for each of them, and counts once.

local counts, seen, all = {}, {}, {0, 0}
for i = 2, #ARGV do
  local count = {0, 0}
  for _, name in ipairs(workers_in(ARGV[i])) do
    local slots = slots_in(name)
    count[1], count[2] = count[1] + 1, count[2] + slots
    if not seen[name] then
      seen[name], all[1], all[2] = true, all[1] + 1, all[2] + slots
    end
  end
  counts[i - 1] = count
end
counts[#counts + 1] = all
return counts
