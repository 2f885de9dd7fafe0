-- Library (uses clock): a job's record. Its facts are one field of a hash, its text is another; scripts move ids, and no
-- script reads a text or takes longer for a long one.
--
-- A job is in exactly one place: a line (lines.lua), `scheduled`, `leases`, `ended` or `dead`. It leaves all of them when it
-- is finished.

local JOBS, TEXTS, COUNTS = key('jobs'), key('texts'), key('counts')

-- The facts, in the order in which they are packed, and what each is where nobody says. Times in ms since the epoch.
--   lane, step, number     where its place is: priority step, and number in the order of arrival
--   model, tenant          whose line; a model of "" draws on no budget that the scheduler knows of
--   task, task_id, batch   of Celery's message; batch: "" or the batch's id
--   submitted, deadline    deadline: 0 for none
--   since                  when it came back to its place, or may start again; 0: it has not been out
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
--   prefix                 of its prompt, which others may begin with, too, as in lib/prefixes.lua; "": nobody asks
--   ending, reason, told   once nobody will work on it: why, and how often a worker took it to tell those who wait
--   usd, cap, parked       what its call costs and its batch may, in nanodollars (0: not known, no cap); 1 while it is set aside since
--                          its batch may cost no more
--   ship, shipment, fare   how it goes, by the numbers below, the id of its shipment (shipments.lua), what it took of caps (fares.lua)
--                          The last ones, from prefix on and these, are left out where they say nothing
local FACTS = {'lane', 'step', 'number', 'model', 'tenant', 'task', 'task_id', 'batch', 'submitted', 'deadline', 'requests',
  'input_tokens', 'characters', 'output_tokens', 'max_tokens', 'whole', 'tries', 'timeouts', 'refused_at', 'out', 'deaths',
  'suspect', 'unique', 'kept', 'large', 'claim', 'budget', 'ticket', 'list', 'ending', 'reason', 'told', 'since', 'usd', 'cap',
  'parked', 'prefix', 'ship', 'shipment', 'fare'}
local UNSAID = {lane = '', step = 0, number = 0, model = '', tenant = '', task = '', task_id = '', batch = '', submitted = 0,
  deadline = 0, requests = 0, input_tokens = 0, characters = 0, output_tokens = -1, max_tokens = -1, whole = 0, tries = 0,
  timeouts = 0, refused_at = 0, out = 0, deaths = 0, suspect = 0, unique = '', kept = 0, large = 0, claim = '', budget = '',
  ticket = '', list = '', ending = '', reason = '', told = 0, since = 0, usd = 0, cap = 0, parked = 0, prefix = '',
  ship = 0, shipment = '', fare = ''}

-- Facts that each record has; of those behind them, the last ones that say nothing are left out.
local ALWAYS = 33

-- By a call of its own; as part of a batch of the API's, once a worker ships it; as part of one that is under way; with its
-- answer at hand.
local LIVE, MAY_SHIP, SHIPPED, ANSWERED = 0, 1, 2, 3

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
    job[name] = facts[i] or UNSAID[name]
  end
  return job
end

local function packed(job)
  local facts = {}
  for i, name in ipairs(FACTS) do
    facts[i] = job[name] or UNSAID[name]
  end
  while #facts > ALWAYS and facts[#facts] == UNSAID[FACTS[#facts]] do
    facts[#facts] = nil
  end
  return cmsgpack.pack(facts)
end

local function write_job(id, job)
  redis.call('HSET', JOBS, id, packed(job))
end

-- The names that a record may have: a task that replaces or repeats itself by a message of its own id still runs then.
local function names_of(id)
  return {id, id .. '~', id .. '~~', id .. '~~~'}
end

-- The records of a task's messages, each with `id` and `job`.
local function records_of(task_id)
  local records = {}
  for _, id in ipairs(names_of(task_id)) do
    local job = read_job(id)
    if job and (id == task_id or job.task_id == task_id) then
      records[#records + 1] = {id = id, job = job}
    end
  end
  return records
end

local function text_key(id)
  return key('text:' .. id)
end

local function bytes_of(id, job)
  return job.large == 1 and redis.call('STRLEN', text_key(id)) or redis.call('HSTRLEN', TEXTS, id)
end

-- Whether a job was cancelled, or all of its batch ('': it has none).
local function is_marked(task_id, batch)
  return redis.call('EXISTS', key('cancel:' .. task_id)) == 1
    or batch ~= '' and redis.call('EXISTS', key('cancel:' .. batch)) == 1
end

-- How many jobs of a lane are `queued`, `scheduled`, `held` or `shipped`. Queues that are no lanes are not counted.
local function count(lane, place, by)
  if LANES[lane] and redis.call('HINCRBY', COUNTS, lane .. ':' .. place, by) < 0 then
    redis.call('HDEL', COUNTS, lane .. ':' .. place) -- somebody has deleted the numbers; from here on they are right again
  end
end

-- Where jobs are that are counted so.
local WHERE = {queued = 'models:', scheduled = 'scheduled', held = 'leases', shipped = 'shipped'}

local function number_of(lane, place)
  local number = tonumber(redis.call('HGET', COUNTS, lane .. ':' .. place) or '0')
  local where = key(WHERE[place] .. (place == 'queued' and lane or ''))
  if number > 0 and redis.call('EXISTS', JOBS, where) < 2 and redis.call('EXISTS', key('parked:' .. lane)) == 0 then
    redis.call('HDEL', COUNTS, lane .. ':' .. place) -- whoever deleted the jobs by hand has left their number
    return 0
  end
  return number
end

-- Jobs that no worker holds, which is what a lane's capacity bounds: their texts are here, those of shipped ones, too.
local function depth_of(lane)
  return number_of(lane, 'queued') + number_of(lane, 'scheduled') + number_of(lane, 'shipped')
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

-- Sorted set: the jobs of a lane's model that may be shipped, by number.
local function may_ship_key(lane, model)
  return key('may_ship:' .. lane .. ':' .. model)
end

-- Take a job out of those that may be shipped; returns whether others are left.
local function leave_waiting(id, lane, model)
  redis.call('ZREM', may_ship_key(lane, model), id)
  local others = redis.call('EXISTS', may_ship_key(lane, model)) == 1
  if not others then
    redis.call('SREM', key('may_ship:' .. lane), model)
  end
  return others
end

-- Hash: id -> the answer that came with a shipment.
local ANSWERS = key('answers')

-- The job goes live from now on, or has ended.
local function end_shipping(id, job)
  if job.ship == MAY_SHIP then
    leave_waiting(id, job.lane, job.model)
  elseif job.ship == ANSWERED then
    redis.call('HDEL', ANSWERS, id)
  end
  job.ship, job.shipment = LIVE, ''
end

-- The job has ended, and nothing is left of it.
local function finish(id, job)
  if job.ship ~= LIVE then
    end_shipping(id, job)
  end
  redis.call('HDEL', JOBS, id)
  if job.large == 1 then
    redis.call('UNLINK', text_key(id))
  else
    redis.call('HDEL', TEXTS, id)
  end
  release_name(job)
end
