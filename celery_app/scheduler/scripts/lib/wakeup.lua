-- Library (uses jobs): wakes one worker that waits for a queue.
--
-- A wakeup is a list that workers block on; it holds at most one token. A lost or late token costs nothing but time:
-- nobody blocks for longer than a quarter of a second.

-- Milliseconds after which a wakeup that nobody waits for is gone.
local WAKEUP_LIFE = 60000

local function wake(queue)
  local wakeup = key('bell:' .. queue)
  if redis.call('LLEN', wakeup) == 0 then
    redis.call('LPUSH', wakeup, '1')
    redis.call('PEXPIRE', wakeup, WAKEUP_LIFE)
  end
end
