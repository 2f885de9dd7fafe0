-- Decide: whether a job ends by itself or was cancelled; whoever comes first.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: id of the job
-- ARGV[3] string: id of its batch; "": none
-- ARGV[4] integer: seconds for which the decision is remembered
--
-- Returns 1 if it ends by itself, now or since before; 0 if it was cancelled.

return may_end(ARGV[2], ARGV[3], ARGV[4]) and 1 or 0
