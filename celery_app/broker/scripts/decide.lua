-- Decide: whether a job ends by itself or is cancelled; whoever comes first.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: id of the job
-- ARGV[3] string: id of its batch; "": none
-- ARGV[4] string: "end" or "cancel"
-- ARGV[5] integer: seconds for which the decision is remembered
--
-- Returns 1 if it is as asked, now or since before; 0 if the other came first.

local ended, cancelled = ARGV[1] .. 'lanes:ended:' .. ARGV[2], ARGV[1] .. 'lanes:cancel:' .. ARGV[2]
if ARGV[4] == 'cancel' then
  if redis.call('EXISTS', ended) == 1 then
    return 0
  end
  redis.call('SET', cancelled, 1, 'EX', ARGV[5])
  return 1
end
local is_cancelled = redis.call('EXISTS', cancelled) == 1
  or ARGV[3] ~= '' and redis.call('EXISTS', ARGV[1] .. 'lanes:cancel:' .. ARGV[3]) == 1
-- A job that ended once and was delivered again ends as it did.
if is_cancelled and redis.call('EXISTS', ended) == 0 then
  return 0
end
redis.call('SET', ended, 1, 'EX', ARGV[5])
return 1
