-- Library (uses jobs, leases, quota, aside, budgets, tickets): taking a job out of its worker's hands; what it has reserved and not used goes
-- back into the budget.

-- The job's reservation, if it is not settled yet: its call never left.
local function refund(id, job)
  if job.ticket == '' or redis.call('SISMEMBER', job.budget .. ':calls', job.claim .. '|' .. id) == 0 then
    return
  end
  local ticket, nothing = read_ticket(job.ticket), function() return 0 end
  correct_quotas(ticket, nothing, let_in)
  local text = redis.call('HGET', key('terms'), job.lane .. ':' .. job.model)
  if text then
    local budget = open_budget(cjson.decode(text))
    if budget.name == job.budget then
      correct(budget, ticket, nothing)
      save_budget(budget)
    end
  end
end

-- The job, in nobody's hands any more, if it was held under this token; else nil.
local function take_back(id, token)
  local job = held(id, token)
  if job then
    refund(id, job)
    release(id, job)
  end
  return job
end
