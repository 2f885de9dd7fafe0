-- Library (uses clock, jobs, lines, bell, scheduled): a job on its way in.
--
-- Its arguments, in this order:
--   id string: its task id, or its delivery tag
--   text string: its message; "" if it is at the key `upload:<id>`, as a large one is, for no script to touch it
--   step integer: priority step
--   model, tenant, task, task_id, batch: strings, as in lib/jobs.lua
--   age integer: ms since its submission
--   left integer: ms until its deadline; -1: it has none
--   delay integer: ms before which it must not start; 0: at once
--   requests, input_tokens, characters, output_tokens, max_tokens, whole: integers, its cost, as in lib/jobs.lua
--   tries integer: failed attempts so far
--   unique string, kept integer: name under which it is to be the only one, ms for which that lasts after its end
local FIELDS = 20

-- The job whose arguments begin at ARGV[at], its id, its text and its delay.
local function job_in(at, lane)
  local function number(i)
    return tonumber(ARGV[at + i])
  end
  local left = number(9)
  local job = {lane = lane, step = number(2), model = ARGV[at + 3], tenant = ARGV[at + 4], task = ARGV[at + 5],
    task_id = ARGV[at + 6], batch = ARGV[at + 7], submitted = NOW - number(8), deadline = left >= 0 and NOW + left or 0,
    requests = number(11), input_tokens = number(12), characters = number(13), output_tokens = number(14),
    max_tokens = number(15), whole = number(16), tries = number(17), unique = ARGV[at + 18], kept = number(19)}
  return ARGV[at], job, ARGV[at + 1], number(10)
end

-- The task id of the job that has this one's name, or nil.
local function name_taken(job)
  return job.unique ~= '' and redis.call('GET', key('unique:' .. job.unique)) or nil
end

-- A second live message of an id gets another one.
local function free_id(id, number)
  return redis.call('HEXISTS', JOBS, id) == 1 and id .. '~' .. number or id
end

local function enter(wanted_id, job, text, delay)
  job.number = redis.call('INCR', key('number'))
  local id = free_id(wanted_id, job.number)
  if text == '' then
    redis.call('RENAME', key('upload:' .. wanted_id), text_key(id))
    redis.call('PERSIST', text_key(id))
    job.large = 1
  else
    redis.call('HSET', TEXTS, id, text)
  end
  write_job(id, job)
  if job.unique ~= '' then
    redis.call('SET', key('unique:' .. job.unique), job.task_id)
  end
  if delay > 0 then
    job.submitted = NOW + delay -- waits are counted from then on: it was not meant to start before
    job.deadline = job.deadline > 0 and job.deadline + delay or 0
    write_job(id, job)
    schedule(id, job, delay)
  else
    enter_line(id, job)
  end
end
