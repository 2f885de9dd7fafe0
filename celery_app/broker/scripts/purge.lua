-- Purge: drop all jobs of a queue that no worker holds, wherever they wait.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: separator between a queue's name and a priority step
-- ARGV[3] string: queue
-- ARGV[4] string: priority steps, as in "0,3,6,9"
-- Returns the number of jobs dropped.

local prefix, separator, queue = ARGV[1], ARGV[2], ARGV[3]
local dropped, lists, models_of = 0, {}, read_asides(prefix)

local function drop(key)
  dropped = dropped + redis.call('LLEN', key)
  redis.call('DEL', key)
end

for step in string.gmatch(ARGV[4], '[^,]+') do
  local list = step == '0' and queue or queue .. separator .. step
  lists[list] = true
  drop(prefix .. list)
  redis.call('DEL', models_key(prefix, list))
  for _, model in ipairs(models_of[list] or {}) do
    drop(aside_key(prefix, list, model))
    redis.call('HDEL', prefix .. 'lanes:asides', list .. '|' .. model)
  end
end
redis.call('HDEL', prefix .. 'lanes:aside_depth', queue)
for _, tag in ipairs(redis.call('HKEYS', prefix .. 'lanes:returned')) do
  local entry = redis.call('HGET', prefix .. 'lanes:returned', tag)
  if lists[string.match(entry, '^([^|]*)|')] then
    unschedule(prefix, queue, tag)
    dropped = dropped + 1
  end
end
return dropped
