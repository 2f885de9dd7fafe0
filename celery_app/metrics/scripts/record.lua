-- Record: add what one worker process counted to the totals and to the present time slots.
--
-- The slots come from the server's clock: workers on several machines share them, and one whose clock is off would
-- write into slots that nobody reads. A batch whose answer was lost is sent again, and counts once all the same.
--
-- KEYS: none; the slots' keys are made from the time.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: who sends, unique to the process
-- ARGV[3] integer: number of the batch; a repeated one keeps its number
-- ARGV[4] integer: length of a slot of counts, s
-- ARGV[5] integer: length of a slot of times, s
-- ARGV[6] integer: how long slots are kept, s
-- ARGV[7] JSON: lane -> {counts: kind -> count, waits and calls: bucket -> count, with sum_us and longest_us, integers}
--
-- Returns 1, or 0 for a batch that is in already.

local metrics, batch, keep = ARGV[1] .. 'lanes:metrics:', ARGV[3], ARGV[6]
local receipt = metrics .. 'sender:' .. ARGV[2]
if redis.call('GET', receipt) == batch then
  return 0
end

local now = redis.call('TIME')[1]
local counts_slot, times_slot = ':counts:' .. math.floor(now / ARGV[4]), math.floor(now / ARGV[5])

local function add_counts(lane, counts)
  local slot = metrics .. lane .. counts_slot
  for kind, count in pairs(counts) do
    redis.call('HINCRBY', metrics .. 'totals', lane .. ':' .. kind, count)
    redis.call('HINCRBY', slot, kind, count)
  end
  redis.call('EXPIRE', slot, keep)
end

-- kind: waits or calls.
local function add_times(lane, kind, times)
  local slot = metrics .. lane .. ':' .. kind .. ':' .. times_slot
  for field, value in pairs(times) do
    if field ~= 'longest_us' then
      redis.call('HINCRBY', slot, field, value)
    elseif value > tonumber(redis.call('HGET', slot, field) or -1) then
      redis.call('HSET', slot, field, value)
    end
  end
  redis.call('EXPIRE', slot, keep)
end

for lane, tally in pairs(cjson.decode(ARGV[7])) do
  add_counts(lane, tally.counts)
  for _, kind in ipairs({'waits', 'calls'}) do
    if next(tally[kind]) then
      add_times(lane, kind, tally[kind])
    end
  end
end
redis.call('SET', receipt, batch, 'EX', keep)
return 1
