-- Library (uses clock, jobs, lines, prefixes, wakeup, dead, ended, own): what workers hold, and its release.
--
-- A held job bears the token of its claim, "<process>:<number>", and is in `leases` by the time of its worker's last sign of
-- life. The token is new with each claim, so nobody can let go of what he no longer holds.

local LEASES = key('leases')

-- Leases that are ended at once: bounds the time the server is blocked; the rest follows with the next call.
local MOST_REAPED = 200

-- Deaths of a process that are laid on a job, after which it is dead-lettered.
local MOST_DEATHS = 5

local function register(id, job, token)
  job.claim = token
  write_job(id, job)
  redis.call('ZADD', LEASES, NOW, id)
  count(job.lane, 'held', 1)
end

-- The job, if it is held under this token; else nil.
local function held(id, token)
  local job = read_job(id)
  return job and job.claim == token and token ~= '' and job or nil
end

-- It is in nobody's hands. What it has reserved is still in the budget, and no call of it is in flight.
local function release(id, job)
  if is_suspect(job) then
    wake(job.lane) -- its process may have the next
  end
  step_down(id, job)
  redis.call('ZREM', LEASES, id)
  if job.budget ~= '' then
    redis.call('SREM', job.budget .. ':calls', job.claim .. '|' .. id)
  end
  job.claim, job.budget, job.ticket = '', '', ''
  count(job.lane, 'held', -1)
end

-- Seconds for which a call that was taken for dead may still be settled.
local LAPSED_KEPT = 3600

-- The process that made the call is dead, or cut off: then it will say what the call has used.
local function lapse(id, job)
  local lapsed = job.budget .. ':lapsed'
  if job.budget ~= '' and redis.call('SMOVE', job.budget .. ':calls', lapsed, job.claim .. '|' .. id) == 1 then
    redis.call('EXPIRE', lapsed, LAPSED_KEPT)
  end
end

-- Back to its place, now or after `delay` ms, unless it was cancelled meanwhile: it would wait for a budget and draw on it. A
-- message of a queue that is no lane goes to the front of its list.
local function stand_again(id, job, delay)
  job.out, job.since = 1, NOW + delay
  if job.list ~= '' then
    put_back(id, job, 'RPUSH')
    return
  elseif job.lane == '' then
    finish(id, job) -- a call without a job
    return
  elseif is_marked(job.task_id, job.batch) then
    end_job(id, job, 'cancelled', '')
    return
  end
  write_job(id, job)
  if delay > 0 then
    schedule(id, job, delay)
  else
    enter_line(id, job)
    wake(job.lane)
  end
end

-- A process died while it held the job. Laid on it, that is one of the deaths after which it is dead-lettered.
local function survive(id, job, laid_on)
  if laid_on and LANES[job.lane] then
    job.deaths = job.deaths + 1
    if job.deaths >= MOST_DEATHS then
      end_job(id, job, 'buried', 'its worker died or hung ' .. job.deaths .. ' times while it had the job')
      return
    end
  end
  job.suspect = math.min(job.suspect + 1, SUSPECT)
  stand_again(id, job, 0)
end

-- process -> the ids of what it holds, for processes with a lease that is over.
local function held_by_dead(lease)
  local ids = redis.call('ZRANGEBYSCORE', LEASES, '-inf', NOW - lease, 'LIMIT', 0, MOST_REAPED)
  if not ids[1] then
    return {}
  end
  local processes = {}
  local function add(id)
    local job = read_job(id)
    local process = job and string.match(job.claim, '^[^:]+') -- nil: nobody holds it
    if not process then
      redis.call('ZREM', LEASES, id)
      return
    end
    processes[process] = processes[process] or {}
    processes[process][id] = job
  end
  for _, id in ipairs(ids) do
    add(id)
  end
  return processes
end

-- Jobs whose worker gave no sign of life for `lease` ms return. Whose fault it was, nobody knows. A first death says little:
-- a machine was lost, and all of its jobs are to be back at once. What was there for a second one is a suspect from then on,
-- and no process gets two of them at a time (claim.lua). So of a death that a suspect was there for, it is to blame.
-- A process that was told to stop, and is killed because it takes its time, dies of no job.
-- lease: 0: leave leases alone.
local function reap(lease)
  if not note_time() or lease == 0 then
    return
  end
  for process, jobs in pairs(held_by_dead(lease)) do
    local told_to_stop = redis.call('EXISTS', key('leaving:' .. process)) == 1
    local suspects = 0
    for _, job in pairs(jobs) do
      suspects = suspects + (is_suspect(job) and 1 or 0)
    end
    for id, job in pairs(jobs) do
      lapse(id, job)
      release(id, job)
      if told_to_stop then
        stand_again(id, job, 0)
      else
        survive(id, job, is_suspect(job) and suspects == 1)
      end
    end
  end
end
