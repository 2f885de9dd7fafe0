-- Library (uses message): what a worker holds, and letting go of it.
--
-- A held job is in `unacked` (kombu's format), with its claim ("<token>|<list>") and its lease (when its worker last
-- gave a sign of life, ms). The token is new with each claim, so nobody can let go of what he no longer holds.

local function hold(prefix, tag, token, list, queue, text, now)
  redis.call('HSET', prefix .. 'unacked', tag, wrap(text, queue))
  redis.call('ZADD', prefix .. 'unacked_index', now / 1000, tag)
  redis.call('HSET', prefix .. 'lanes:claims', tag, token .. '|' .. list)
  redis.call('ZADD', prefix .. 'lanes:leases', now, tag)
end

local function forget(prefix, tag)
  redis.call('HDEL', prefix .. 'unacked', tag)
  redis.call('ZREM', prefix .. 'unacked_index', tag)
  redis.call('HDEL', prefix .. 'lanes:claims', tag)
  redis.call('ZREM', prefix .. 'lanes:leases', tag)
end

-- The list a job was claimed from, if it is still held under this token (or under any, without one); else nil.
local function held_from(prefix, tag, token)
  local claim = redis.call('HGET', prefix .. 'lanes:claims', tag)
  if not claim then
    return nil
  end
  local holder, list = string.match(claim, '^([^|]*)|(.*)$')
  if token and holder ~= token then
    return nil
  end
  return list
end

-- Take a job out of its worker's hands: its list and text, or nil if it is not held so.
local function take_back(prefix, separator, tag, token)
  local list = held_from(prefix, tag, token)
  if not list then
    return nil
  end
  local wrapped = redis.call('HGET', prefix .. 'unacked', tag)
  forget(prefix, tag)
  if not wrapped then
    return nil
  end
  return list, unwrap(wrapped, queue_of(list, separator))
end
