-- Library: the server's clock, the only one that the budget knows. A worker's clock may be wrong by seconds.

-- Microseconds.
local SECOND = 1000000

-- Microseconds since the epoch; Lua's numbers are exact up to 2^53, which is far away.
local function now_us()
  local time = redis.call('TIME')
  return time[1] * SECOND + time[2]
end
