-- Spent: what was spent in a day.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] JSON: the days around now, as in lib/spent.lua
-- ARGV[3] integer: how many days before today that is
--
-- Returns the day's name, and the fields of its window, as HGETALL has them.

local days = cjson.decode(ARGV[2])
local today, day = day_of(days), nil
for i, each in ipairs(days) do
  day = each[2] == today and days[math.max(1, i - tonumber(ARGV[3]))][2] or day
end
return {day, redis.call('HGETALL', key('spent:day:' .. day))}
