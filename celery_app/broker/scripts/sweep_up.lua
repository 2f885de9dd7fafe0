-- Library (uses message, front, bell, dead, hold): brings back what is due and what was abandoned.

-- Jobs moved at once: bounds the time the server is blocked; the rest follows with the next call.
local MOST_SWEPT = 200

local function add(lists, list, text)
  lists[list] = lists[list] or {}
  table.insert(lists[list], text)
end

-- Returns whose time has come.
local function collect_due(prefix, now, lists)
  local due = redis.call('ZRANGEBYSCORE', prefix .. 'lanes:returns', '-inf', now, 'LIMIT', 0, MOST_SWEPT)
  for _, tag in ipairs(due) do
    local entry = redis.call('HGET', prefix .. 'lanes:returned', tag)
    redis.call('ZREM', prefix .. 'lanes:returns', tag)
    redis.call('HDEL', prefix .. 'lanes:returned', tag)
    if entry then
      local list, text = string.match(entry, '^([^|]*)|(.*)$')
      add(lists, list, text)
    end
  end
end

-- Jobs whose worker gave no sign of life for a lease; one that kills its workers again and again is buried.
local function collect_expired(prefix, separator, now, lease, most_deliveries, lists)
  local dead_since = now - lease
  local expired = redis.call('ZRANGEBYSCORE', prefix .. 'lanes:leases', '-inf', dead_since, 'LIMIT', 0, MOST_SWEPT)
  for _, tag in ipairs(expired) do
    local list, text = take_back(prefix, separator, tag, nil)
    if list then
      local deliveries = redis.call('HINCRBY', prefix .. 'lanes:deliveries', tag, 1)
      if deliveries >= most_deliveries then
        redis.call('HDEL', prefix .. 'lanes:deliveries', tag)
        local reason = 'its worker died or hung ' .. deliveries .. ' times while it had the job'
        bury_and_tell(prefix, tag, queue_of(list, separator), text, reason, now)
      else
        add(lists, list, text)
      end
    else
      redis.call('ZREM', prefix .. 'lanes:leases', tag)
    end
  end
end

-- Jobs that a stock worker took an hour ago: stock Celery's own visibility timeout. It gives no sign of life.
local FORSAKEN = 3600

local function collect_forsaken(prefix, separator, now, lists)
  local since = now / 1000 - FORSAKEN
  local tags = redis.call('ZRANGEBYSCORE', prefix .. 'unacked_index', '-inf', since, 'LIMIT', 0, MOST_SWEPT)
  for _, tag in ipairs(tags) do
    local wrapped = redis.call('HGET', prefix .. 'unacked', tag) or ''
    local text, queue = string.match(wrapped, '^%[(.*), "[^"]*", "([^"]*)"%]$')
    forget(prefix, tag)
    if text then
      local step = math.floor((tonumber(field(text, 'priority', '(%d+)')) or 0) / 3) * 3
      add(lists, step == 0 and queue or queue .. separator .. step, text)
    elseif wrapped ~= '' then
      bury_and_tell(prefix, tag, '?', wrapped, 'a stock worker left it, and its queue is not to be made out', now)
    end
  end
end

local function sweep_up(prefix, separator, now, lease, most_deliveries)
  local lists = {}
  collect_due(prefix, now, lists)
  if lease > 0 then
    collect_expired(prefix, separator, now, lease, most_deliveries, lists)
    collect_forsaken(prefix, separator, now, lists)
  end
  for list, texts in pairs(lists) do
    put_in_front(prefix .. list, texts)
    note_models(prefix, list, texts, 1, #texts)
    ring(prefix, queue_of(list, separator))
  end
end
