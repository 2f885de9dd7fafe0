-- Cancel: decide that a job is cancelled, unless it has ended by itself; out of its line it ends at once.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: id of the job's task
-- ARGV[3] integer: seconds for which the decision is remembered
--
-- Returns 1 if it is cancelled, now or since before; 0 if it had ended.

local id = ARGV[2]
if redis.call('EXISTS', key('ended:' .. id)) == 1 then
  return 0
end
redis.call('SET', key('cancel:' .. id), 1, 'EX', ARGV[3])
for _, record in ipairs(records_of(id)) do
  if leave_line(record.id, record.job) or unschedule(record.id, record.job) or leave_shipment(record.id, record.job) then
    end_job(record.id, record.job, 'cancelled', '')
  end
end
return 1
