-- Tell (uses message): a worker takes burials that nobody outside of Redis has heard of, to end their jobs.
--
-- What was taken is taken by another if it is not removed from `lanes:telling` in time: its worker has died.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] integer: burials to take at most
-- ARGV[3] integer: ms after which what was taken and not removed is taken again
--
-- Returns the burials, as dead.lua wrote them.

local prefix, most, now = ARGV[1], tonumber(ARGV[2]), now_ms()
local telling = prefix .. 'lanes:telling'
local taken = redis.call('ZRANGEBYSCORE', telling, '-inf', now - ARGV[3], 'LIMIT', 0, most)
if #taken < most then
  for _, entry in ipairs(redis.call('LPOP', prefix .. 'lanes:untold', most - #taken) or {}) do
    taken[#taken + 1] = entry
  end
end
for _, entry in ipairs(taken) do
  redis.call('ZADD', telling, now, entry)
end
return taken
