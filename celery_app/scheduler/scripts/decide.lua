-- Decide: whether a job ends by itself or was cancelled; whoever comes first.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: id of the job
-- ARGV[3] string: id of its batch; "": none
-- ARGV[4] integer: seconds for which the decision is remembered
--
-- ARGV[5] string: id of its record, if it fails. ARGV[6] string: token of the claim that it was handed out under
--
-- Returns 1 if it ends by itself, now or since before; 0 if it was cancelled; 2 if it fails, and is in other hands by now.

local job = ARGV[5] ~= '' and read_job(ARGV[5])
if job and job.claim ~= ARGV[6] then
  return 2
end
return may_end(ARGV[2], ARGV[3], ARGV[4]) and 1 or 0
