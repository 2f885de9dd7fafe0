-- Bury: a job that cannot be worked on goes to the dead letters; whoever buries it tells those who wait.
--
-- KEYS: none. ARGV[1] string: prefix of all keys. ARGV[2] string: id. ARGV[3] string: token of the claim.
-- ARGV[4] string: reason.
-- Returns 1, or 0 if the job is no longer held under this claim.

local id = ARGV[2]
local job = take_back(id, ARGV[3])
if not job then
  return 0
end
bury(id, job, ARGV[4])
return 1
