-- Library (uses clock, jobs, lines, wakeup, scheduled): a job on its way in.
--
-- Its arguments are two: its text, "" if that is at the key `upload:<id>`, as a large one is, for no script to touch it; and a
-- JSON array of its facts, since a client takes as long for one argument as for a short array:
--   1 id: its task id, or its delivery tag
--   2 step: priority step
--   3 … 7 model, tenant, task, task_id, batch: texts, as in lib/jobs.lua
--   8 age: ms since its submission
--   9 left: ms until its deadline; -1: it has none
--   10 delay: ms before which it must not start; 0: at once
--   11 … 16 requests, input_tokens, characters, output_tokens, max_tokens, whole: its cost, as in lib/jobs.lua
--   17 tries: failed attempts so far
--   18 unique, 19 kept: name under which it is to be the only one, ms for which that lasts after its end
--   20 usd, 21 cap: as in lib/jobs.lua; 22 prefix: of its prompt, as in lib/prefixes.lua; the last ones left out if they say nothing
local FIELDS = 2

-- The job whose arguments begin at ARGV[at], its id, its text and its delay.
local function job_in(at, lane)
  local facts = cjson.decode(ARGV[at + 1])
  local job = {lane = lane, step = facts[2], model = facts[3], tenant = facts[4], task = facts[5], task_id = facts[6],
    batch = facts[7], submitted = NOW - facts[8], deadline = facts[9] >= 0 and NOW + facts[9] or 0, requests = facts[11],
    input_tokens = facts[12], characters = facts[13], output_tokens = facts[14], max_tokens = facts[15], whole = facts[16],
    tries = facts[17], unique = facts[18], kept = facts[19], usd = facts[20], cap = facts[21], prefix = facts[22] or ''}
  return facts[1], job, ARGV[at], facts[10]
end

-- The task id of the job that has this one's name, or nil. A name is free whose job was deleted by hand: it has no lifetime yet.
local function name_taken(job)
  local name = key('unique:' .. job.unique)
  local other = job.unique ~= '' and redis.call('GET', name)
  local is_left = other and not records_of(other)[1] and redis.call('TTL', name) == -1
  return other and not is_left and other or nil
end

-- Numbers in the order of arrival for so many jobs; returns the one before the first. Where somebody has deleted the last one, they
-- go on above all that were given: fewer than one a ms.
local function numbers_for(jobs)
  local before = redis.call('INCRBY', key('number'), jobs) - jobs
  if before == 0 and redis.call('EXISTS', JOBS) == 1 then
    before = redis.call('INCRBY', key('number'), NOW) - jobs
  end
  return before
end

-- Write a job down, by the first of its names that is free; of more than these, nobody looks for it. Returns its id.
local function write_new(id, job)
  for _, name in ipairs(names_of(id)) do
    if redis.call('HSETNX', JOBS, name, packed(job)) == 1 then
      return name
    end
  end
  id = id .. '~' .. job.number
  write_job(id, job)
  return id
end

local function enter(wanted_id, job, text, delay, number)
  job.number, job.large = number, text == '' and 1 or 0
  if job.large == 1 and redis.call('EXISTS', key('upload:' .. wanted_id)) == 0 then
    error('the text of a large job is not there: send it before') -- nothing has been written
  end
  if delay > 0 then
    job.submitted = NOW + delay -- waits are counted from then on: it was not meant to start before
    job.deadline = job.deadline > 0 and job.deadline + delay or 0
  end
  local id = write_new(wanted_id, job)
  if job.large == 1 then
    redis.call('RENAME', key('upload:' .. wanted_id), text_key(id))
    redis.call('PERSIST', text_key(id))
  else
    redis.call('HSET', TEXTS, id, text)
  end
  take_name(job)
  if delay > 0 then
    schedule(id, job, delay)
  else
    enter_line(id, job)
  end
end
