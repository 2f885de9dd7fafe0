-- Library: keeps what cannot be worked on, with the reason.

-- prefix: of all keys; id: delivery tag, or nil for a text without one; queue: where it came from.
local function bury(prefix, id, queue, text, reason, now)
  id = id or ('untagged-' .. redis.call('INCR', prefix .. 'lanes:dead_untagged'))
  -- The same job may die again after a replay: its newest death is the one that counts.
  if redis.call('HSET', prefix .. 'lanes:dead', id, text) == 1 then
    redis.call('HINCRBY', prefix .. 'lanes:dead_lanes', queue, 1)
  end
  redis.call('HSET', prefix .. 'lanes:dead_reasons', id, queue .. '|' .. reason)
  redis.call('ZADD', prefix .. 'lanes:dead_index', now, id)
  return id
end

-- Burials that no worker decided, whose jobs nobody outside of Redis knows to have ended: how many wait to be told,
-- 200 bytes each, and seconds for which.
local MOST_UNTOLD, UNTOLD_KEPT = 100000, 604800

-- Uses message. The same, for any worker to end the job for whoever waits, and to write into its log; see tell.lua.
local function bury_and_tell(prefix, id, queue, text, reason, now)
  id = bury(prefix, id, queue, text, reason, now)
  local task, job = field(text, 'task', '"([^"\\]+)"'), field(text, 'correlation_id', '"([^"\\]+)"')
  redis.call('RPUSH', prefix .. 'lanes:untold', cjson.encode({queue, task or '?', job or id, reason, id}))
  redis.call('LTRIM', prefix .. 'lanes:untold', -MOST_UNTOLD, -1)
  redis.call('EXPIRE', prefix .. 'lanes:untold', UNTOLD_KEPT)
end
