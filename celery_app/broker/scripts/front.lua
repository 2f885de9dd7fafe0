-- Library (uses message): puts jobs at the front of their lists, oldest first.
--
-- Jobs that come back one by one must not turn their order round, so those that stand at the front already are taken
-- up and sorted in. A list's front is its right end.

-- Jobs that may be taken up at once; more than a fleet has slots only after an accident, and then order matters less
-- than the time this script may block the server.
local MOST_TAKEN_UP = 1000

local function older(one, other)
  return one.at < other.at
end

-- list: key; texts: jobs in any order.
local function put_in_front(list, texts)
  local jobs = {}
  for _, text in ipairs(texts) do
    jobs[#jobs + 1] = {at = submitted_at(text), text = mark_been_out(text)}
  end
  table.sort(jobs, older)
  local youngest, arriving = jobs[#jobs].at, #jobs
  while #jobs - arriving < MOST_TAKEN_UP do
    local front = redis.call('LINDEX', list, -1)
    if not front or not has_been_out(front) or submitted_at(front) > youngest then
      break
    end
    redis.call('RPOP', list)
    jobs[#jobs + 1] = {at = submitted_at(front), text = front}
  end
  table.sort(jobs, older)
  for i = #jobs, 1, -1 do
    redis.call('RPUSH', list, jobs[i].text)
  end
end
