-- Library (uses clock, jobs, lines, prefixes): who passes the jobs that wait for the first one with their prefix. They stay in their
-- line: a look goes past them, and the next look goes on where that one ended.

-- Jobs of a lane's model that one look goes past, at most half of what is left in each line.
local MOST_LOOKS = 128

-- Hash: line -> "<jobs> <place of the last of them> <µs until one of them may go>": those at its front that were passed.
local PASSED = key('passed')

-- Jobs of a line that need not be looked at again, and until when; none where the line is not what it was.
local function passed_before(line)
  local jobs, place, till = string.match(redis.call('HGET', PASSED, line) or '', '^(%d+) (%d+) (%d+)$')
  if till and tonumber(till) > NOW_US and redis.call('ZCOUNT', line, '-inf', place) == tonumber(jobs) then
    return tonumber(jobs), tonumber(till)
  end
  return 0, NOW_US + MOST_WARMING
end

-- The first of a line's jobs that does not wait, of so many, as a head, or nil.
local function passing_in(line, budget, most)
  local jobs, till = passed_before(line)
  local entries = redis.call('ZRANGE', line, jobs, jobs + most - 1, 'WITHSCORES')
  local place, found
  for i = 1, #entries, 2 do
    local job = read_job(entries[i])
    local wait = job and line_key(job) == line and wait_for_first(budget, job)
    if wait == 0 then
      found = {id = entries[i], job = job, place = tonumber(entries[i + 1])}
      break
    end
    jobs, place, till = jobs + 1, entries[i + 1], math.min(till, NOW_US + (wait or MOST_WARMING))
  end
  if place then
    redis.call('HSET', PASSED, line, string.format('%d %.0f %.0f', jobs, place, till))
    redis.call('PEXPIRE', PASSED, MOST_WARMING / 1000)
  end
  return found
end

-- The first job by turns of a lane's model that does not wait for the first one with its prefix, as a head, or nil.
local function passing(lane, model, budget)
  local left = MOST_LOOKS
  for _, tenant in ipairs(tenants_at_turn(lane, model, MOST_LOOKS)) do
    left = math.floor(left / 2)
    local line = line_key({lane = lane, model = model, tenant = tenant})
    local head = left > 0 and passing_in(line, budget, left)
    if head then
      head.start = start_tag(lane, tenant)
      return head
    end
  end
end
