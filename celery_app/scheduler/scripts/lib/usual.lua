-- Library (uses jobs, lines, budgets, heads): what the jobs of a lane and model usually cost, from some that are read.

-- Jobs of a lane's model that are read to know what they cost on average, and tenants that are counted, at most; and of all
-- lanes and models together, of each at least one: Redis does nothing else meanwhile.
local MOST_READ = 16
local MOST_READ_OF_ALL = 3 * MOST_READ

-- The place of a line's jobs that are read: evenly from all of it.
local function read_some(line, most)
  local jobs, number = {}, redis.call('ZCARD', line)
  most = math.min(most, number)
  for i = 0, most - 1 do
    local rank = math.floor(i * number / most)
    jobs[#jobs + 1] = read_job(redis.call('ZRANGE', line, rank, rank)[1])
  end
  return jobs
end

-- What of this is one head's part; `share_reads` sets it.
local most_read = MOST_READ

local function share_reads(lanes)
  local heads = 0
  for _, lane in ipairs(lanes) do
    for _ in pairs(lane.heads) do
      heads = heads + 1
    end
  end
  most_read = math.min(MOST_READ, math.max(1, math.floor(MOST_READ_OF_ALL / heads)))
end

-- What a job of a head's lane and model costs on average.
local function usual(head)
  if head.usual then
    return head.usual
  end
  local tenants = redis.call('ZRANGE', tenants_key(head.lane.name, head.model), 0, most_read - 1)
  local sum, jobs = {requests = 0, input_tokens = 0, output_tokens = 0}, 0
  for _, tenant in ipairs(tenants) do
    local line = line_key({lane = head.lane.name, model = head.model, tenant = tenant})
    for _, job in ipairs(read_some(line, math.ceil(most_read / #tenants))) do
      jobs = jobs + 1
      for dimension, cost in pairs(cost_of(head.budget, job) or {}) do
        sum[dimension] = sum[dimension] + cost
      end
    end
  end
  for dimension in pairs(sum) do
    sum[dimension] = jobs > 0 and sum[dimension] / jobs or 0
  end
  head.usual = sum
  return sum
end

-- How many jobs there are of a head's lane and model.
local function number_behind(head)
  head.jobs = head.jobs or jobs_of(head.lane.name, head.model, MOST_READ)
  return head.jobs
end

local function usual_seconds(head)
  local seconds = head.budget and seconds_of(head.budget, usual(head)) or 0
  return seconds > 0 and seconds or NOMINAL
end
