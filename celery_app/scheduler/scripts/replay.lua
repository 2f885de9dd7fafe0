-- Replay: take dead letters in hand, to put them back at their places (requeue.lua) once their failures are forgotten. If
-- nobody does so, their leases bring them back.
--
-- A job gets fresh attempts, the time that it had from its submission to its deadline, and its name. It has not ended any more,
-- for its batch and its readers neither. Of those who replay a letter at once, one gets it.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: token of the claim, "<process>:<number>"
-- ARGV[3] string: the task whose jobs have a stream, `stream:<task id>`
-- ARGV[4] integer: seconds that an empty stream is kept
-- ARGV[5] integer: seconds after which a batch is forgotten if nothing happens to it
-- ARGV[6] integer: number n of the lanes; ARGV[7…6+2n] pairs: a lane, and its capacity
-- ARGV[7+2n…] strings: ids
--
-- Returns for each: "done"; "gone": it is no dead letter, or none any more; "untold": those who wait are yet to be told by a
-- worker that it has ended; "named": another job has its unique name; "full": its lane has no room.

local token, first = ARGV[2], 7 + 2 * tonumber(ARGV[6])
local room = {}
for i = 7, first - 1, 2 do
  room[ARGV[i]] = tonumber(ARGV[i + 1]) - depth_of(ARGV[i])
end

-- Greatest number of a bit that Redis takes, and so index of a batch's job.
local LAST_BIT = 2^32 - 1

-- It is counted anew when it ends; see client/scripts/tally.lua.
local function untally(job)
  local index = tonumber(string.match(job.task_id, '-(%d+)$') or '')
  local batch = key('batch:' .. job.batch)
  if job.batch == '' or not index or index > LAST_BIT or redis.call('EXISTS', batch) == 0
    or redis.call('GETBIT', batch .. ':seen', index) == 0 then
    return
  end
  redis.call('SETBIT', batch .. ':seen', index, 0)
  redis.call('HINCRBY', batch, 'failed', -1)
  local entry = redis.call('HGET', batch .. ':failed', index)
  if entry then
    redis.call('XDEL', batch .. ':ended', entry)
    redis.call('HDEL', batch .. ':failed', index)
  end
  for _, part in ipairs({'', ':seen', ':failed', ':ended'}) do
    redis.call('EXPIRE', batch .. part, ARGV[5])
  end
end

-- Readers who come now wait for another answer; those who came before go on behind the last one's end.
local function begin_anew(job)
  redis.call('DEL', key('done:' .. job.task_id), key('ended:' .. job.task_id))
  if job.task == ARGV[3] then
    local stream = key('stream:' .. job.task_id)
    redis.call('XADD', stream, 'MAXLEN', 0, '*', 'queued', '')
    redis.call('EXPIRE', stream, ARGV[4])
  end
end

local function take(id, job)
  leave_dead(id, job)
  take_name(job)
  untally(job)
  begin_anew(job)
  local allowed = job.deadline > 0 and job.deadline - job.submitted or 0
  job.submitted, job.deadline = NOW, allowed > 0 and NOW + allowed or 0
  job.tries, job.timeouts, job.refused_at, job.ending, job.reason = 0, 0, 0, '', ''
  register(id, job, token)
end

local function verdict_on(id, job)
  if not job or not redis.call('ZSCORE', DEAD, id) then
    return 'gone'
  elseif is_untold(id) then
    return 'untold'
  elseif (name_taken(job) or job.task_id) ~= job.task_id then
    return 'named'
  elseif (room[job.lane] or 1) <= 0 then
    return 'full'
  end
  return 'done'
end

local words = {}
for i = first, #ARGV do
  local id = ARGV[i]
  local job = read_job(id)
  local word = verdict_on(id, job)
  if word == 'done' then
    room[job.lane] = room[job.lane] and room[job.lane] - 1
    take(id, job)
  end
  words[#words + 1] = word
end
return words
