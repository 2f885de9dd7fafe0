-- Purge: drop jobs of a lane that no worker holds, wherever they wait.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: lane
-- ARGV[3] integer: jobs to drop at most, so that the server is not blocked for long
-- ARGV[4…] strings: keys of lists, without the prefix, in which stock producers leave messages for the lane
-- Returns the number of jobs dropped; less than were asked for: none are left.

local lane, most, dropped = ARGV[2], tonumber(ARGV[3]), 0

local function drop(id, job, leave)
  if job and leave(id, job) then
    finish(id, job)
    dropped = dropped + 1
  end
end

local function drop_lines(model)
  for _, tenant in ipairs(redis.call('ZRANGE', tenants_key(lane, model), 0, most)) do
    local line = line_key({lane = lane, model = model, tenant = tenant})
    for _, id in ipairs(dropped < most and redis.call('ZRANGE', line, 0, most - dropped - 1) or {}) do
      drop(id, read_job(id), leave_line)
    end
  end
end

-- Of many models only some are looked at in one go.
local before
repeat
  before = dropped
  for _, model in ipairs(models_of(lane)) do
    drop_lines(model)
  end
until dropped == before or dropped >= most
if dropped >= most then
  return dropped
end
for _, id in ipairs(redis.call('ZRANGE', SCHEDULED, 0, -1)) do
  local job = read_job(id)
  if job and job.lane == lane and dropped < most then
    drop(id, job, unschedule)
  end
end
for i = 4, #ARGV do
  dropped = dropped + redis.call('LLEN', ARGV[1] .. ARGV[i])
  redis.call('UNLINK', ARGV[1] .. ARGV[i])
end
return dropped
