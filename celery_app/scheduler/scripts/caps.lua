-- Caps: write down what the settings say of money, and when days end. Workers do so when they start, and when the settings change.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] integer: number n of the days; ARGV[3…2+n] integers: when each ends, ms since the epoch; none: they end at midnight, UTC
-- ARGV[3+n…] pairs: name of a cap as in lib/quota.lua, nanodollars
--
-- Returns 1 if anything has changed.

local days, given = tonumber(ARGV[2]), {}
for i = 3 + days, #ARGV, 2 do
  given[ARGV[i]] = ARGV[i + 1]
end
local was, found, changed = {}, redis.call('HGETALL', CAPS), false
for i = 1, #found, 2 do
  was[found[i]] = found[i + 1]
end
redis.call('DEL', DAYS)
for i = 3, 2 + days do
  redis.call('ZADD', DAYS, ARGV[i], ARGV[i])
end
for name in pairs(was) do
  if not given[name] then
    redis.call('HDEL', CAPS, name)
    changed = true
  end
end
for name, limit in pairs(given) do
  if was[name] ~= limit then
    redis.call('HSET', CAPS, name, limit)
    changed = true
  end
end
for lane in pairs(changed and LANES or {}) do
  bring_all_back(lane)
  wake(lane)
end
return changed and 1 or 0
