-- Library (uses message, front, bell, dead, hold, scheduled): brings back what is due and what was abandoned.

-- Jobs moved at once: bounds the time the server is blocked; the rest follows with the next call.
local MOST_SWEPT = 200

local function add(lists, list, text)
  lists[list] = lists[list] or {}
  table.insert(lists[list], text)
end

-- Returns whose time has come.
local function collect_due(prefix, separator, now, lists)
  local due = redis.call('ZRANGEBYSCORE', prefix .. 'lanes:returns', '-inf', now, 'LIMIT', 0, MOST_SWEPT)
  for _, tag in ipairs(due) do
    local entry = redis.call('HGET', prefix .. 'lanes:returned', tag)
    local list, text = string.match(entry or '', '^([^|]*)|(.*)$')
    unschedule(prefix, list and queue_of(list, separator) or '', tag)
    if list then
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
      -- The messages of a queue that is no lane come back as often as they were lost, as everywhere in Celery.
      local in_lane = LANES[queue_of(list, separator)]
      local deliveries = in_lane and redis.call('HINCRBY', prefix .. 'lanes:deliveries', tag, 1) or 0
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

local function sweep_up(prefix, separator, now, lease, most_deliveries)
  local lists = {}
  collect_due(prefix, separator, now, lists)
  if lease > 0 then
    collect_expired(prefix, separator, now, lease, most_deliveries, lists)
  end
  for list, texts in pairs(lists) do
    put_in_front(prefix .. list, texts)
    note_models(prefix, list, texts, 1, #texts)
    ring(prefix, queue_of(list, separator))
  end
end
