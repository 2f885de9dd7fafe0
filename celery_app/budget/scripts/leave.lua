-- Leave: give up a job's place in the line, so that nobody waits for one who will not ask again.
--
-- KEYS[1] hash: the budget
-- ARGV[1] string: lane of the job
-- ARGV[2] string: the job, as it called itself when it asked
--
-- Returns 1, or 0 if it did not hold its lane's place.

local field = 'place:' .. ARGV[1]
local holder = holder_of({[field] = redis.call('HGET', KEYS[1], field) or nil}, ARGV[1], 0, now_us())
if not holder or holder.waiter ~= ARGV[2] then
  return 0
end
return redis.call('HDEL', KEYS[1], field)
