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
end
