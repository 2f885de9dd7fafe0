-- Library (uses jobs): wakes one worker that waits for a queue.
--
-- A bell is a list that workers block on; it holds at most one token. A lost or late token costs nothing but time:
-- nobody blocks for longer than a quarter of a second.

-- Milliseconds after which a bell that nobody waits for is gone.
local BELL_LIFE = 60000

local function ring(queue)
  local bell = key('bell:' .. queue)
  if redis.call('LLEN', bell) == 0 then
    redis.call('LPUSH', bell, '1')
    redis.call('PEXPIRE', bell, BELL_LIFE)
  end
end
