-- List dead: what is known of dead letters.
--
-- KEYS: none. ARGV[1] string: prefix of all keys. ARGV[2…] strings: ids.
-- Returns for each that is one: id, lane, task, task id, tenant, model, batch, reason, tries, ms since its submission, ms since
-- it died, bytes of its message.

local found = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local died_at = redis.call('ZSCORE', DEAD, id)
  local job = died_at and read_job(id)
  if job then
    found[#found + 1] = {id, job.lane, job.task, job.task_id, job.tenant, job.model, job.batch, job.reason, job.tries,
      NOW - job.submitted, NOW - tonumber(died_at), bytes_of(id, job)}
  end
end
return found
