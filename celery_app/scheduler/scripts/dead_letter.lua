-- Dead-letter: a job that cannot be worked on goes to the dead letters, and in the same step to those of which is to be told.
--
-- KEYS: none. ARGV[1] string: prefix of all keys. ARGV[2] string: id. ARGV[3] string: token of the claim.
-- ARGV[4] string: reason. ARGV[5] integer: number of tries from now on; -1: as it is. ARGV[6] integer: 1 if those who wait have
-- been told.
-- Returns 1, or 0 if the job is no longer held under this claim.

local id, tries = ARGV[2], tonumber(ARGV[5])
local job = take_back(id, ARGV[3])
if not job then
  return 0
end
job.tries = tries >= 0 and tries or job.tries
if ARGV[6] == '1' then
  dead_letter(id, job, ARGV[4])
else
  end_job(id, job, 'buried', ARGV[4])
end
return 1
