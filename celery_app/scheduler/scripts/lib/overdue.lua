-- Library (uses clock, jobs, lines, ended): jobs whose deadline passes while they are queued.

-- Jobs ended at once: bounds the time the server is blocked; the rest follows with the next call.
local MOST_OVERDUE = 100

local function end_overdue()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', NOW, 'LIMIT', 0, MOST_OVERDUE)) do
    redis.call('ZREM', DEADLINES, id)
    local job = read_job(id)
    if job and leave_line(id, job) then
      end_job(id, job, 'deadline', '')
    end
  end
end
