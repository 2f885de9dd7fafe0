-- Library (uses lines, heads): who goes before a job of the same lane, as its tenants take turns.

-- Lines of other tenants that are looked into; of more, as many jobs are taken to be in each of the others.
local MOST_RIVALS = 64

-- Turns that differ by less are the same: they are sums of fractions.
local SAME = 1e-9

-- Jobs of a model in a line that stand before a place.
local function before_in(lane, model, tenant, place)
  local line = line_key({lane = lane.name, model = model, tenant = tenant})
  return redis.call('ZCOUNT', line, '-inf', '(' .. string.format('%.0f', place))
end

-- Of so many jobs of a tenant, those whose turn comes before `turn`; seconds: of the budget that each takes.
local function gone_before(lane, tenant, jobs, seconds, turn, first_of_same)
  local turns = (turn - start_tag(lane.name, tenant)) * weight_of(tenant) / seconds
  local whole = math.floor(turns + 0.5)
  if math.abs(turns - whole) < SAME then
    turns = whole + (first_of_same and 1 or 0)
  end
  return math.max(0, math.min(jobs, math.ceil(turns)))
end

-- model -> tenant -> jobs, of the other tenants; and by how much more there are than were looked into.
local function rivals_of(job, models)
  local rivals, all, looked_into = {}, 0, 0
  for _, model in ipairs(models) do
    local tenants = tenants_key(job.lane, model)
    all = all + redis.call('ZCARD', tenants)
    for _, tenant in ipairs(redis.call('ZRANGE', tenants, 0, math.ceil(MOST_RIVALS / #models) - 1)) do
      looked_into = looked_into + 1
      if tenant ~= job.tenant then
        rivals[tenant] = rivals[tenant] or {}
        rivals[tenant][model] = redis.call('ZCARD', line_key({lane = job.lane, model = model, tenant = tenant}))
      end
    end
  end
  return rivals, looked_into > 0 and math.max(1, all / looked_into) or 1
end

-- model -> jobs of the lane that go before a job. models: those whose jobs take turns with it, its own among them; seconds: of
-- the budget, of a job of each.
local function jobs_before(lane, job, models, seconds)
  local place, before, turn = job.step * STEP + job.number, {}, start_tag(lane.name, job.tenant)
  for _, model in ipairs(models) do
    before[model] = before_in(lane, model, job.tenant, place)
    turn = turn + before[model] * seconds[model] / weight_of(job.tenant)
  end
  local rivals, more = rivals_of(job, models)
  for tenant, lines in pairs(rivals) do
    local jobs, taken = 0, 0
    for model, number in pairs(lines) do
      jobs, taken = jobs + number, taken + number * seconds[model]
    end
    if jobs > 0 then
      local gone = gone_before(lane, tenant, jobs, taken / jobs, turn, tenant < job.tenant)
      for model, number in pairs(lines) do
        before[model] = before[model] + more * gone * number / jobs
      end
    end
  end
  return before
end
