-- Spent: what was spent in a day.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] JSON: the days around now, as in lib/spent.lua
-- ARGV[3] integer: how many days before today that is
--
-- Returns the day's name; the fields of its window, as HGETALL has them; and what a day may cost, of all and of each lane that has a
-- cap: its name and nanodollars.

local days = cjson.decode(ARGV[2])
local today, day = day_of(days), nil
for i, each in ipairs(days) do
  day = each[2] == today and days[math.max(1, i - tonumber(ARGV[3]))][2] or day
end
local caps = {}
local function add_cap(name)
  local limit = allowed(name)
  if limit then
    caps[#caps + 1], caps[#caps + 2] = name, string.format('%.0f', limit)
  end
end
add_cap('all|')
for lane in pairs(LANES) do
  add_cap('lane|' .. lane)
end
return {day, redis.call('HGETALL', key('spent:day:' .. day)), caps}
