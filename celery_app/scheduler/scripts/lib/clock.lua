-- Library: the server's clock, the only one there is. A machine's own may be wrong by minutes, so nobody sends times,
-- only durations. Where it is put back (NTP, a machine that was paused, a failover), this one goes on: whatever was
-- written down as a time would else be waited for once more.

-- Every script has the prefix of all keys as its first argument.
local function key(name)
  return ARGV[1] .. 'lanes:' .. name
end

-- Microseconds.
local SECOND = 1000000

-- Hash, written once a second: `at`, the time then; `ahead`, µs by which the server's clock has been put back so far;
-- `gap_at`, when nobody had noted the time for long.
local CLOCK = key('time')

-- Now: µs and ms since the epoch; Lua's numbers are exact up to 2^53, which is far away. AHEAD: µs before the server's clock.
local NOW_US, NOW, AHEAD, NOTED_AT, GAP_AT
do
  local time, kept = redis.call('TIME'), redis.call('HMGET', CLOCK, 'at', 'ahead', 'gap_at')
  local server = time[1] * SECOND + time[2]
  NOTED_AT, AHEAD, GAP_AT = tonumber(kept[1] or server), tonumber(kept[2] or 0), tonumber(kept[3] or 0)
  NOW_US = math.max(NOTED_AT, server + AHEAD)
  NOW = math.floor(NOW_US / 1000)
  AHEAD = NOW_US - server
end

-- Signs of life come every 3 s, and with them the time is noted. Microseconds without that, after which the server has stood
-- still or its clock has been put forward; and how long each worker has then to give a sign.
local GAP, GRACE = 10 * SECOND, 6 * SECOND

-- Note the time. Returns whether all have had the time for a sign of life since the last gap.
local function note_time()
  if NOW_US - NOTED_AT > GAP then
    GAP_AT = NOW_US
  end
  if NOW_US - NOTED_AT >= SECOND or NOW_US == NOTED_AT then
    redis.call('HDEL', CLOCK, '') -- a server out of memory refuses HSET as a script's first write, not as a later one
    redis.call('HSET', CLOCK, 'at', string.format('%.0f', NOW_US), 'ahead', string.format('%.0f', AHEAD), 'gap_at',
      string.format('%.0f', GAP_AT))
  end
  return NOW_US - GAP_AT >= GRACE
end
