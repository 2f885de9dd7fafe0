-- Library: keeps what cannot be worked on, with the reason, for a while and up to a bound; the oldest go first.

-- How long dead letters are kept, ms; how many, and how many bytes of them. A prompt in one makes it as large as its job.
local DEAD_KEPT, MOST_DEAD, MOST_DEAD_BYTES = 7 * 86400 * 1000, 10000, 256 * 1024 * 1024

-- Dead letters dropped at once: bounds the time the server is blocked; the rest follows with the next call.
local MOST_DROPPED = 100

local function drop_dead(prefix, id)
  local bytes = redis.call('HSTRLEN', prefix .. 'lanes:dead', id)
  local reason = redis.call('HGET', prefix .. 'lanes:dead_reasons', id)
  redis.call('ZREM', prefix .. 'lanes:dead_index', id)
  redis.call('HDEL', prefix .. 'lanes:dead_reasons', id)
  if redis.call('HDEL', prefix .. 'lanes:dead', id) == 1 then
    local queue = string.match(reason or '', '^([^|]*)|') or ''
    if redis.call('HINCRBY', prefix .. 'lanes:dead_lanes', queue, -1) <= 0 then
      redis.call('HDEL', prefix .. 'lanes:dead_lanes', queue)
    end
    redis.call('HINCRBY', prefix .. 'lanes:dead_totals', 'bytes', -bytes)
    redis.call('HINCRBY', prefix .. 'lanes:dead_totals', 'dropped', 1)
  end
end

local function is_beyond(prefix, dead_since)
  local count = redis.call('ZCARD', prefix .. 'lanes:dead_index')
  local oldest = redis.call('ZRANGE', prefix .. 'lanes:dead_index', 0, 0, 'WITHSCORES')
  local bytes = tonumber(redis.call('HGET', prefix .. 'lanes:dead_totals', 'bytes') or '0')
  local beyond = count > MOST_DEAD or count > 1 and bytes > MOST_DEAD_BYTES or tonumber(oldest[2] or now_ms()) < dead_since
  return beyond and oldest[1]
end

-- Uses message. Drop the oldest of what is too old or too much.
local function trim_dead(prefix, now)
  for _ = 1, MOST_DROPPED do
    local id = is_beyond(prefix, now - DEAD_KEPT)
    if not id then
      break
    end
    drop_dead(prefix, id)
  end
end

-- Uses message. prefix: of all keys; id: delivery tag, or nil for a text without one; queue: where it came from.
local function bury(prefix, id, queue, text, reason, now)
  id = id or ('untagged-' .. redis.call('INCR', prefix .. 'lanes:dead_untagged'))
  if redis.call('EXISTS', prefix .. 'lanes:dead_index') == 0 then
    redis.call('HDEL', prefix .. 'lanes:dead_totals', 'bytes') -- somebody has deleted them all
  end
  local bytes = #text - redis.call('HSTRLEN', prefix .. 'lanes:dead', id)
  -- The same job may die again after a replay: its newest death is the one that counts.
  if redis.call('HSET', prefix .. 'lanes:dead', id, text) == 1 then
    redis.call('HINCRBY', prefix .. 'lanes:dead_lanes', queue, 1)
  end
  redis.call('HSET', prefix .. 'lanes:dead_reasons', id, queue .. '|' .. reason)
  redis.call('ZADD', prefix .. 'lanes:dead_index', now, id)
  redis.call('HINCRBY', prefix .. 'lanes:dead_totals', 'bytes', bytes)
  trim_dead(prefix, now)
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
