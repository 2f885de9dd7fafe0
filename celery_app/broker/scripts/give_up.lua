-- Give up: a job that cannot be worked on goes to the dead letters.
--
-- KEYS: none. ARGV[1] string: prefix of all keys. ARGV[2] string: separator between a queue's name and a step.
-- ARGV[3] string: delivery tag. ARGV[4] string: token of the claim. ARGV[5] string: reason.
-- Returns 1, or 0 if the job is no longer held under this claim.

local prefix, separator, tag = ARGV[1], ARGV[2], ARGV[3]
local list, text = take_back(prefix, separator, tag, ARGV[4])
if not list then
  return 0
end
redis.call('HDEL', prefix .. 'lanes:deliveries', tag)
bury(prefix, tag, queue_of(list, separator), text, ARGV[5], now_ms())
return 1
