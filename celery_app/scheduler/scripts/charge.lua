-- Charge: write down what a job has cost that came back with its answer from a batch of the API's; once, whoever runs it again.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys. ARGV[2] string: id of the job. ARGV[3] JSON: its bill, as in lib/spent.lua;
-- empty: it has cost nothing, since its answer is an error, and no more is done than to give back what it took of caps
-- ARGV[4] integer: nanodollars
-- Returns the caps that are nearly used up since, as settle.lua does.

local job = read_job(ARGV[2])
if not job or job.ship ~= ANSWERED or job.shipment == '' then
  return {}
end
job.shipment = ''
settle_fare(job, tonumber(ARGV[4]))
write_job(ARGV[2], job)
return ARGV[3] == '' and {} or note_spent(ARGV[3], tonumber(ARGV[4]))
