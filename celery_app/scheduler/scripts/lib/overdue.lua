-- Library (uses clock, jobs, lines, shipments, ended): jobs whose deadline passes while they are queued, or shipped.

-- Jobs ended at once: bounds the time the server is blocked; the rest follows with the next call.
local MOST_OVERDUE = 100

-- Why the API refuses the account, if that is what the job has waited for; '' otherwise.
local function account_refused(job)
  local terms = redis.call('HGET', key('terms'), job.lane .. ':' .. job.model)
  local shut = terms and redis.call('HGET', key('budget:shut'), job.lane .. '|' .. cjson.decode(terms).family)
  local words = shut and string.match(shut, '^1 %S+ (.*)$')
  return words and 'the API refuses the account: ' .. words or ''
end

local function end_overdue()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', NOW, 'LIMIT', 0, MOST_OVERDUE)) do
    redis.call('ZREM', DEADLINES, id)
    local job = read_job(id)
    if job and (leave_line(id, job) or leave_shipment(id, job)) then
      end_job(id, job, 'deadline', account_refused(job))
    end
  end
end
