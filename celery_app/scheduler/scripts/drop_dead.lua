-- Drop dead: dead letters go for good, and nothing is left of their jobs.
--
-- KEYS: none. ARGV[1] string: prefix of all keys. ARGV[2…] strings: ids.
-- Returns for each: "done"; "gone": it is none, or none any more; "untold": those who wait are yet to be told by a worker.

local words = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local job = read_job(id)
  if is_untold(id) then
    words[i - 1] = 'untold'
  elseif job and leave_dead(id, job) then
    finish(id, job)
    words[i - 1] = 'done'
  else
    redis.call('ZREM', DEAD, id) -- somebody has deleted its record
    words[i - 1] = 'gone'
  end
end
return words
