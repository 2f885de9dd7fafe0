-- Library (uses clock, jobs, lines, state, quota): what a cap of a tenant or a batch holds back is set aside, so that the jobs of others come
-- to the front, however many there are of it.
--
-- A tenant stands behind all others of its lane and model. A batch's jobs go one by one, as they come to the front, into a line of its
-- own, and back to their places when it may cost more.

-- Jobs and tenants that are moved at once: bounds the time the server is blocked; the rest follows with the next call.
local MOST_MOVED = 64

-- Tenants of a model that are moved when somebody changes caps, which is rare.
local MOST_RETURNED = 1024

-- Note that what a quota covers was set aside, so that somebody looks when it has room again.
local function note_aside(quota, aside)
  if (quota.aside == '1') ~= aside then
    quota.aside = aside and '1' or nil
    keep_quota(quota)
  end
end

local function park(id, job)
  leave_line(id, job)
  job.parked = 1
  write_job(id, job)
  enter_line(id, job)
end

-- Some of a batch's jobs return to their places. Returns whether that was all of them.
local function unpark(lane, batch)
  local line = line_key({lane = lane, batch = batch, parked = 1})
  local ids = redis.call('ZRANGE', line, 0, MOST_MOVED - 1)
  for _, id in ipairs(ids) do
    local job = read_job(id)
    if job and job.parked == 1 and leave_line(id, job) then
      write_job(id, job)
      enter_line(id, job)
    else
      drop_entry(lane, line, id, job)
    end
  end
  if #ids < MOST_MOVED then
    redis.call('SREM', parked_key(lane), batch)
    return true
  end
  return false
end

local function bring_back(lane, model, tenants)
  for _, tenant in ipairs(tenants) do
    redis.call('ZADD', tenants_key(lane, model), 'XX', start_tag(lane, tenant), tenant)
  end
  return tenants[1] ~= nil
end

-- Tenants of a lane's model whose windows end by `till` stand as they did before, `most` of them. Returns whether there were any.
local function bring_back_by(lane, model, till, most)
  return bring_back(lane, model,
    redis.call('ZRANGEBYSCORE', tenants_key(lane, model), ASIDE, till, 'LIMIT', 0, most or MOST_MOVED))
end

-- Caps have changed: the tenants of all models of a lane stand as they did before; those whose caps are as they were are set aside again.
local function bring_all_back(lane)
  for _, model in ipairs(redis.call('SMEMBERS', models_key(lane))) do
    bring_back_by(lane, model, '+inf', MOST_RETURNED)
  end
end

local function is_aside(lane, model, tenant)
  return tonumber(redis.call('ZSCORE', tenants_key(lane, model), tenant) or '0') >= ASIDE
end

-- A cap has room again, or another limit: what it has set aside returns. Where that is not all, a job of it that goes brings the next.
local function let_in(quota)
  local kind, whose = string.match(quota.name, '^([^|]*)|(.*)$')
  local all = true
  for lane in pairs(quota.aside == '1' and LANES or {}) do
    if kind == 'batch' then
      all = unpark(lane, whose) and all
    else
      for _, model in ipairs(redis.call('SMEMBERS', models_key(lane))) do
        bring_back(lane, model, is_aside(lane, model, whose) and {whose} or {})
      end
    end
  end
  note_aside(quota, not all)
end

-- A job of a batch goes, and has been counted: more of it may follow.
local function let_in_more(job, terms)
  if job.batch ~= '' and (has_caps(terms) or job.cap > 0) and quota_of('batch|' .. job.batch).aside == '1' then
    let_in(quota_of('batch|' .. job.batch))
  end
end

-- A head's job may not go; have others go before it. Returns whether it was set aside.
local function pass_by(head)
  local quota = head.pause and head.pause.quota
  local kind = quota and string.match(quota.name, '^[^|]*')
  if kind == 'batch' then
    park(head.id, head.job)
  elseif kind == 'tenant' and not head.aside then
    redis.call('ZADD', tenants_key(head.lane.name, head.model), 'XX', ASIDE + quota.till, head.job.tenant)
  else
    return false
  end
  note_aside(quota, true)
  return true
end
