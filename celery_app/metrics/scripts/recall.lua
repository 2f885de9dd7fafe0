-- Recall: what happened in one lane lately, its time slots added up.
--
-- They are added here because their names depend on the server's clock, and because the sum of many slots is hardly
-- larger than one of them. One lane at a time, so that claims can come between.
--
-- KEYS: none; the slots' keys are made from the time.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: lane
-- ARGV[3] integer: length of a slot of counts, s
-- ARGV[4] number: how far back to count, s
-- ARGV[5] integer: length of a slot of waits and of calls, s
-- ARGV[6] number: how far back to look for these, s
--
-- Returns ms that the counts cover, the counts, the waits, how long calls took; the slot in which a stretch begins is taken
-- whole. All are flat arrays: field, value, field, value, …

local lane = ARGV[1] .. 'lanes:metrics:' .. ARGV[2]
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000

local function add(sums, field, value)
  if field == 'longest_us' then
    sums[field] = math.max(sums[field] or 0, value)
  else
    sums[field] = (sums[field] or 0) + value
  end
end

local function flat(sums)
  local fields = {}
  for field, sum in pairs(sums) do
    fields[#fields + 1] = field
    fields[#fields + 1] = sum
  end
  return fields
end

-- Seconds that the slots from the one `reach` s ago to the present one cover; the sums of their fields.
local function added_up(slots, length, reach)
  local first, sums = math.floor((now - reach) / length), {}
  for slot = first, math.floor(now / length) do
    local fields = redis.call('HGETALL', lane .. slots .. slot)
    for i = 1, #fields, 2 do
      add(sums, fields[i], tonumber(fields[i + 1]))
    end
  end
  return now - first * length, flat(sums)
end

local covered, counts = added_up(':counts:', tonumber(ARGV[3]), tonumber(ARGV[4]))
local _, waits = added_up(':waits:', tonumber(ARGV[5]), tonumber(ARGV[6]))
local _, calls = added_up(':calls:', tonumber(ARGV[5]), tonumber(ARGV[6]))
return {math.floor(covered * 1000), counts, waits, calls}
