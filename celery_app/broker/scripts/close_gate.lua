-- Close gate: a lane's jobs of a model cannot be admitted before a time; a gate that is closed for longer stays so.
--
-- KEYS[1] hash: the gates
-- ARGV[1] string: lane. ARGV[2] string: model. ARGV[3] integer: ms from now.
-- ARGV[4] integer: pace, ms for which it closes again behind each job that passes soon after it has opened.
-- Returns the ms from now at which the gate opens.

local gate, now = ARGV[1] .. '|' .. ARGV[2], now_ms()
local known = redis.call('HGET', KEYS[1], gate)
local open_at = math.max(tonumber(known and string.match(known, '^%d+') or '0'), now + tonumber(ARGV[3]))
redis.call('HSET', KEYS[1], gate, string.format('%.0f %.0f', open_at, tonumber(ARGV[4])))
return open_at - now
