-- Settle: a job is done; let go of it.
--
-- KEYS: none. ARGV[1] string: prefix of all keys. ARGV[2] string: delivery tag. ARGV[3] string: token of the claim.
-- Returns 1, or 0 if the job is no longer held under this claim: its lease expired, and it is somebody else's now.

local prefix, tag = ARGV[1], ARGV[2]
if not held_from(prefix, tag, ARGV[3]) then
  return 0
end
forget(prefix, tag)
redis.call('HDEL', prefix .. 'lanes:deliveries', tag)
return 1
