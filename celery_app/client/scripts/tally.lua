-- Tally: a job of a batch has ended; count it once, however often it was delivered.
--
-- KEYS[1] hash: the batch; fields `done`, `failed`, `cancelled` count jobs
-- KEYS[2] string: a bit for each job that was counted
-- KEYS[3] stream: the jobs in the order of their ends, fields `i` (index) and `o` (outcome)
-- KEYS[4] hash: index of a job that has failed -> its entry in that stream; what is replayed has not ended any more
-- ARGV[1] integer: index of the job, from 0
-- ARGV[2] string: outcome, one of the counts' names
-- ARGV[3] integer: seconds after which the batch is forgotten if no other job ends
-- Returns 1, or 0 if it was counted before.

if redis.call('SETBIT', KEYS[2], ARGV[1], 1) == 1 then
  return 0
end
redis.call('HINCRBY', KEYS[1], ARGV[2], 1)
local entry = redis.call('XADD', KEYS[3], '*', 'i', ARGV[1], 'o', ARGV[2])
if ARGV[2] == 'failed' then
  redis.call('HSET', KEYS[4], ARGV[1], entry)
end
for _, key in ipairs(KEYS) do
  redis.call('EXPIRE', key, ARGV[3])
end
return 1
