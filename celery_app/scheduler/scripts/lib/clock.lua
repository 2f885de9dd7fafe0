-- Library: the server's clock, the only one there is. A machine's own may be wrong by minutes, so nobody sends times,
-- only durations.

-- Microseconds.
local SECOND = 1000000

-- Now: µs and ms since the epoch; Lua's numbers are exact up to 2^53, which is far away.
local NOW_US, NOW
do
  local time = redis.call('TIME')
  NOW_US = time[1] * SECOND + time[2]
  NOW = math.floor(NOW_US / 1000)
end
