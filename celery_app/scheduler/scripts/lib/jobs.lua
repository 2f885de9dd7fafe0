-- Library (uses clock): a job's record. Its facts are one field of a hash, its text is another; scripts move ids, and no
-- script reads a text or takes longer for a long one.
--
-- A job is in exactly one place: a line (lines.lua), `scheduled`, `leases`, `ended` or `dead`. It leaves all of them when it
-- is finished.

-- Every script has the prefix of all keys as its first argument.
local function key(name)
  return ARGV[1] .. 'lanes:' .. name
end

local JOBS, TEXTS, COUNTS = key('jobs'), key('texts'), key('counts')

-- The facts, in the order in which they are packed, and what each is where nobody says. Times in ms since the epoch.
--   lane, step, number     where its place is: priority step, and number in the order of arrival
--   model, tenant          whose line; a model of "" draws on no budget that the scheduler knows of
--   task, task_id, batch   of Celery's message; batch: "" or the batch's id
--   submitted, deadline    deadline: 0 for none
--   requests … whole       its cost: requests (0: not known, nothing is reserved), input tokens, characters of text, output
--                          tokens (-1: as the model lately produced), the most of these (-1: no bound), 1 if all input counts
--   tries, timeouts        failed attempts, and calls that took all of their time
--   refused_at             µs: when its last call left that was limited or overloaded
--   out                    1 once a worker has had it
--   deaths, suspect        processes that died of it; how many it was there for when they died, up to SUSPECT
--   unique, kept           name under which it is the only one, ms for which that lasts after its end
--   large                  1 if its text has a key of its own
--   claim, budget, ticket  while it is held: token of the claim, key of the budget it draws on, the reservation
--   list                   of a message that came from a queue that is no lane: its list
--   ending, reason         once nobody will work on it: why
local FACTS = {'lane', 'step', 'number', 'model', 'tenant', 'task', 'task_id', 'batch', 'submitted', 'deadline', 'requests',
  'input_tokens', 'characters', 'output_tokens', 'max_tokens', 'whole', 'tries', 'timeouts', 'refused_at', 'out', 'deaths',
  'suspect', 'unique', 'kept', 'large', 'claim', 'budget', 'ticket', 'list', 'ending', 'reason'}
local UNSAID = {lane = '', step = 0, number = 0, model = '', tenant = '', task = '', task_id = '', batch = '', submitted = 0,
  deadline = 0, requests = 0, input_tokens = 0, characters = 0, output_tokens = -1, max_tokens = -1, whole = 0, tries = 0,
  timeouts = 0, refused_at = 0, out = 0, deaths = 0, suspect = 0, unique = '', kept = 0, large = 0, claim = '', budget = '',
  ticket = '', list = '', ending = '', reason = ''}

-- A job of which only this is known.
local function new_job(known)
  for name, unsaid in pairs(UNSAID) do
    known[name] = known[name] or unsaid
  end
  return known
end

-- Deaths that a job was there for, from which on it is a suspect.
local SUSPECT = 2

local function is_suspect(job)
  return job.suspect >= SUSPECT
end

local function read_job(id)
  local text = redis.call('HGET', JOBS, id)
  if not text then
    return nil
  end
  local facts, job = cmsgpack.unpack(text), {}
  for i, name in ipairs(FACTS) do
    job[name] = facts[i]
  end
  return job
end

local function packed(job)
  local facts = {}
  for i, name in ipairs(FACTS) do
    facts[i] = job[name] or UNSAID[name]
  end
  return cmsgpack.pack(facts)
end

local function write_job(id, job)
  redis.call('HSET', JOBS, id, packed(job))
end

local function text_key(id)
  return key('text:' .. id)
end

local function bytes_of(id, job)
  return job.large == 1 and redis.call('STRLEN', text_key(id)) or redis.call('HSTRLEN', TEXTS, id)
end

-- How many jobs of a lane are `queued`, `scheduled` or `held`. Queues that are no lanes are not counted.
local function count(lane, place, by)
  if LANES[lane] then
    redis.call('HINCRBY', COUNTS, lane .. ':' .. place, by)
  end
end

-- Jobs that no worker holds, which is what a lane's capacity bounds.
local function depth_of(lane)
  local counts = redis.call('HMGET', COUNTS, lane .. ':queued', lane .. ':scheduled')
  local depth = tonumber(counts[1] or '0') + tonumber(counts[2] or '0')
  if depth > 0 and redis.call('EXISTS', JOBS) == 0 then
    redis.call('DEL', COUNTS) -- whoever deleted the jobs by hand has left their number
    return 0
  end
  return depth
end

-- The task id of the job that has this one's name, or nil.
local function name_taken(job)
  return job.unique ~= '' and redis.call('GET', key('unique:' .. job.unique)) or nil
end

local function take_name(job)
  if job.unique ~= '' then
    redis.call('SET', key('unique:' .. job.unique), job.task_id)
  end
end

-- A name is free again: at once, or when it was asked to last.
local function release_name(job)
  if job.unique == '' then
    return
  end
  local name = key('unique:' .. job.unique)
  if redis.call('GET', name) ~= job.task_id then
    return
  elseif job.kept > 0 then
    redis.call('PEXPIRE', name, job.kept)
  else
    redis.call('DEL', name)
  end
end

-- The job has ended, and nothing is left of it.
local function finish(id, job)
  redis.call('HDEL', JOBS, id)
  if job.large == 1 then
    redis.call('UNLINK', text_key(id))
  else
    redis.call('HDEL', TEXTS, id)
  end
  release_name(job)
end
