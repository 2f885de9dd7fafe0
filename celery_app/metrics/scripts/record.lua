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
-- ARGV[5] integer: length of a slot of waits, s
-- ARGV[6] integer: how long slots are kept, s
-- ARGV[7] JSON: lane -> {counts: kind -> count, waits: bucket -> count, sum_us: integer, longest_us: integer}
--
-- Returns 1, or 0 for a batch that is in already.

local metrics, batch, keep = ARGV[1] .. 'lanes:metrics:', ARGV[3], ARGV[6]
local receipt = metrics .. 'sender:' .. ARGV[2]
if redis.call('GET', receipt) == batch then
  return 0
end

local now = redis.call('TIME')[1]
local counts_slot, waits_slot = ':counts:' .. math.floor(now / ARGV[4]), ':waits:' .. math.floor(now / ARGV[5])

local function add_counts(lane, counts)
  local slot = metrics .. lane .. counts_slot
  for kind, count in pairs(counts) do
    redis.call('HINCRBY', metrics .. 'totals', lane .. ':' .. kind, count)
    redis.call('HINCRBY', slot, kind, count)
  end
  redis.call('EXPIRE', slot, keep)
end

local function add_waits(lane, tally)
  local slot = metrics .. lane .. waits_slot
  for bucket, count in pairs(tally.waits) do
    redis.call('HINCRBY', slot, bucket, count)
  end
  redis.call('HINCRBY', slot, 'sum_us', tally.sum_us)
  if tally.longest_us > tonumber(redis.call('HGET', slot, 'longest_us') or -1) then
    redis.call('HSET', slot, 'longest_us', tally.longest_us)
  end
  redis.call('EXPIRE', slot, keep)
end

for lane, tally in pairs(cjson.decode(ARGV[7])) do
  add_counts(lane, tally.counts)
  if next(tally.waits) then
    add_waits(lane, tally)
  end
end
redis.call('SET', receipt, batch, 'EX', keep)
return 1
