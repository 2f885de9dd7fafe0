-- Ack: a job is done; nothing is left of it. What it has reserved and not settled, it has not used.
--
-- KEYS: none. ARGV[1] string: prefix of all keys. ARGV[2] string: id. ARGV[3] string: token of the claim.
-- Returns 1, or 0 if the job is no longer held under this claim: its lease was over, and it is somebody else's now.

local id = ARGV[2]
local job = take_back(id, ARGV[3])
if not job then
  return 0
end
finish(id, job)
return 1
