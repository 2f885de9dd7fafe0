-- Library (uses scheduled): how many jobs a lane has that no worker holds, which is what its capacity bounds.

-- lists: keys of the queue's lists, the first `count` of the table.
local function depth_of(prefix, queue, lists, count)
  local depth = count_scheduled(prefix, queue) + tonumber(redis.call('HGET', prefix .. 'lanes:aside_depth', queue) or '0')
  for i = 1, count do
    depth = depth + redis.call('LLEN', lists[i])
  end
  return depth
end
