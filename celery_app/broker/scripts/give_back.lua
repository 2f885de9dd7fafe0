-- Give back: a job returns to the front of its lane, at its original priority, now or later; the waiting is done here.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: separator between a queue's name and a priority step
-- ARGV[3] string: delivery tag
-- ARGV[4] string: token of the claim
-- ARGV[5] integer: ms from now before which the job must not start again
-- ARGV[6] integer: number of retries to write into the job; -1: as it is
-- ARGV[7] integer: deliveries that may go wrong before the job is buried, if this one did; 0: it did not
-- ARGV[8] string: "1": to the back of its queue instead
-- ARGV[9…] string, integer: names and values of notes to write into the job, which its next delivery bears as headers
--
-- Returns 1, or 0 if the job is no longer held under this claim; nothing is doubled then.

local prefix, separator, tag, delay, retries = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[5]), tonumber(ARGV[6])
local list, text = take_back(prefix, separator, tag, ARGV[4])
if not list then
  return 0
end
local deliveries_key, most_deliveries = prefix .. 'lanes:deliveries', tonumber(ARGV[7])
if most_deliveries == 0 then
  redis.call('HDEL', deliveries_key, tag)
else
  local deliveries = redis.call('HINCRBY', deliveries_key, tag, 1)
  if deliveries >= most_deliveries then
    redis.call('HDEL', deliveries_key, tag)
    bury_and_tell(prefix, tag, queue_of(list, separator), text, 'rejected ' .. deliveries .. ' times, or its process died', now_ms())
    return 1
  end
end
text = as_returned(text, retries)
for i = 9, #ARGV, 2 do
  text = with_mark(text, ARGV[i], ARGV[i + 1])
end
if ARGV[8] == '1' then
  redis.call('LPUSH', prefix .. list, mark_been_out(text))
  ring(prefix, queue_of(list, separator))
elseif delay > 0 then
  schedule(prefix, queue_of(list, separator), list, tag, now_ms() + delay, text)
else
  put_in_front(prefix .. list, {text})
  note_models(prefix, list, {text}, 1, 1)
  ring(prefix, queue_of(list, separator))
end
return 1
