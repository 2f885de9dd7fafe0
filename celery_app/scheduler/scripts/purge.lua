-- Purge: drop jobs of a lane that no worker holds, wherever they wait.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: lane
-- ARGV[3] integer: jobs to drop at most, so that the server is not blocked for long
-- ARGV[4] string: the cursor that the last call returned; "0" at first
-- ARGV[5…] strings: keys of lists, without the prefix, in which stock producers leave messages for the lane
-- Returns the number of jobs dropped, and a cursor for the next call; '': none are left.

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

for _, batch in ipairs(redis.call('SMEMBERS', parked_key(lane))) do
  local line = line_key({lane = lane, batch = batch, parked = 1})
  for _, id in ipairs(dropped < most and redis.call('ZRANGE', line, 0, most - dropped - 1) or {}) do
    drop(id, read_job(id), leave_line)
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
  return {dropped, ARGV[4]}
end
-- Those of all lanes wait there, so it is looked through piece by piece.
local found = redis.call('ZSCAN', SCHEDULED, ARGV[4], 'COUNT', most)
for i = 1, #found[2], 2 do
  local job = read_job(found[2][i])
  if job and job.lane == lane then
    drop(found[2][i], job, unschedule)
  end
end
if found[1] ~= '0' then
  return {dropped, found[1]}
end
for i = 5, #ARGV do
  dropped = dropped + redis.call('LLEN', ARGV[1] .. ARGV[i])
  redis.call('UNLINK', ARGV[1] .. ARGV[i])
end
return {dropped, ''}
