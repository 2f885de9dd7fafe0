-- Library (uses lines, heads): who goes before a job of the same lane, as its tenants take turns.

-- Lines of other tenants that are looked into; of more, as many jobs are taken to be in each of the others.
local MOST_RIVALS = 32

-- Turns that differ by less are the same: they are sums of fractions.
local SAME = 1e-9

-- Jobs of a model in a line that stand before a place.
local function before_in(lane, model, tenant, place)
  local line = line_key({lane = lane.name, model = model, tenant = tenant})
  return redis.call('ZCOUNT', line, '-inf', '(' .. string.format('%.0f', place))
end

-- Jobs a second that come into a line: those behind its oldest one, since that came, or behind a later one where that is fewer, since
-- what somebody dropped at once does not go on. Nothing that is known is younger than a second.
local LATER, LEAST_AGE_MS = 4, 1000

local function rate_behind(line, behind)
  local job = read_job(redis.call('ZRANGE', line, -behind - 1, -behind - 1)[1])
  return job and behind / math.max(LEAST_AGE_MS, NOW - job.submitted) * 1000 or 0
end

local function rate_of(line, jobs)
  local all, late = jobs - 1, math.ceil((jobs - 1) / LATER)
  return all > 0 and math.min(rate_behind(line, all), rate_behind(line, late)) or 0
end

-- tenant -> its start tag, its weight and its lines by model, each with its jobs and how many come a second: of the other tenants.
-- And by how much more there are than were looked into.
local function rivals_of(job, models)
  local rivals, all, looked_into = {}, 0, 0
  for _, model in ipairs(models) do
    local tenants = tenants_key(job.lane, model)
    all = all + redis.call('ZCARD', tenants)
    for _, tenant in ipairs(redis.call('ZRANGE', tenants, 0, math.ceil(MOST_RIVALS / #models) - 1)) do
      looked_into = looked_into + 1
      if tenant ~= job.tenant then
        local line = line_key({lane = job.lane, model = model, tenant = tenant})
        local jobs = redis.call('ZCARD', line)
        rivals[tenant] = rivals[tenant] or {start = start_tag(job.lane, tenant), weight = weight_of(tenant), lines = {}}
        rivals[tenant].lines[model] = jobs > 0 and {jobs = jobs, rate = rate_of(line, jobs)} or nil
      end
    end
  end
  return rivals, looked_into > 0 and math.max(1, all / looked_into) or 1
end

-- Of so many jobs of a tenant, those whose turn comes before `turn`; seconds: of the budget that each takes.
local function gone_before(rival, jobs, seconds, turn, is_first)
  local turns = (turn - rival.start) * rival.weight / seconds
  local whole = math.floor(turns + 0.5)
  if math.abs(turns - whole) < SAME then
    turns = whole + (is_first and 1 or 0)
  end
  return math.max(0, math.min(jobs, math.ceil(turns)))
end

-- Add to `before` the jobs of a tenant that go before; wait: seconds in which others come.
local function add_rival(before, rival, more, seconds, turn, is_first, wait)
  local jobs, taken = 0, 0
  for model, line in pairs(rival.lines) do
    local number = line.jobs + line.rate * wait
    jobs, taken = jobs + number, taken + number * seconds[model]
  end
  local gone = jobs > 0 and gone_before(rival, jobs, taken / jobs, turn, is_first) or 0
  for model, line in pairs(rival.lines) do
    before[model] = before[model] + more * gone * (line.jobs + line.rate * wait) / jobs
  end
end

-- A function of the seconds that a job waits, which returns model -> jobs of its lane that go before it by then. models: those whose jobs
-- take turns with it, its own among them; seconds: of the budget, of a job of each.
local function jobs_before(lane, job, models, seconds)
  local place, own, turn = job.step * STEP + job.number, {}, start_tag(lane.name, job.tenant)
  for _, model in ipairs(models) do
    own[model] = before_in(lane, model, job.tenant, place)
    turn = turn + own[model] * seconds[model] / weight_of(job.tenant)
  end
  local rivals, more = rivals_of(job, models)
  return function(wait)
    local before = {}
    for model, jobs in pairs(own) do
      before[model] = jobs
    end
    for tenant, rival in pairs(rivals) do
      add_rival(before, rival, more, seconds, turn, tenant < job.tenant, wait)
    end
    return before
  end
end
