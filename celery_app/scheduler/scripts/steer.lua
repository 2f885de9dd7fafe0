-- Steer: become the one worker that ships a lane's jobs, or stay so; and write down what has become of a shipment.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: lane. ARGV[3] string: token of the worker. ARGV[4] integer: ms for which it is the steersman; 0: no more
-- ARGV[5] string: id of a shipment; '': none
-- ARGV[6…] pairs: fields of the shipment, and what they are from now on. With any of them a shipment that there is not begins
--   if the first is `begun`, which is then its time in ms.
-- Returns 1, or 0 if another worker is the steersman, or there is no such shipment; nothing has been written then.

local lane, token, shipment = ARGV[2], ARGV[3], ARGV[5]
local other = redis.call('GET', key('steers:' .. lane))
if other and other ~= token then
  return 0
elseif ARGV[4] == '0' then
  redis.call('DEL', key('steers:' .. lane))
  return 1
end
redis.call('SET', key('steers:' .. lane), token, 'PX', ARGV[4])
if shipment == '' then
  return 1
end
local begins = ARGV[6] == 'begun'
if not begins and redis.call('EXISTS', shipment_key(shipment)) == 0 then
  return 0
end
if begins then
  redis.call('ZADD', key('shipments:' .. lane), NOW, shipment)
  redis.call('HSET', shipment_key(shipment), 'lane', lane, 'begun', NOW)
end
for i = begins and 8 or 6, #ARGV, 2 do
  redis.call('HSET', shipment_key(shipment), ARGV[i], ARGV[i + 1])
end
return 1
