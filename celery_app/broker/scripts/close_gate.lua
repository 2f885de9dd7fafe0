-- Close gate: a lane's jobs of a model cannot be admitted before a time.
--
-- The job that holds the lane's place in the budget knows the time; the others were told times behind it, and were the
-- gate closed until then, the one that could go would wait for those who cannot.
--
-- KEYS[1] hash: the gates
-- ARGV[1] string: lane. ARGV[2] string: model. ARGV[3] integer: ms from now.
-- ARGV[4] integer: pace, ms for which it closes again behind each job that passes soon after it has opened.
-- ARGV[5] string: "1" if the job holds the place; else a gate that is closed stays as it is.
-- Returns the ms from now at which the gate opens.

local gate, now = ARGV[1] .. '|' .. ARGV[2], now_ms()
local known = redis.call('HGET', KEYS[1], gate)
local open_at = tonumber(known and string.match(known, '^%d+') or '0')
if ARGV[5] == '1' or open_at <= now then
  open_at = now + tonumber(ARGV[3])
  redis.call('HSET', KEYS[1], gate, string.format('%.0f %.0f', open_at, tonumber(ARGV[4])))
end
return open_at - now
