-- Land: jobs leave their shipment. With its answer a job goes to the front of its lane, to be handed out without a budget; undone it
-- goes to its old place, and live from then on. Repeating it does nothing: what has left is in no shipment any more.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: lane. ARGV[3] string: token of its steersman. ARGV[4] string: id of the shipment
-- ARGV[5] integer: 1 if the shipment is over: what is left of it, if nothing is in it any more, is deleted
-- ARGV[6…] pairs: number of a job within the shipment, and its answer; '': undone
--
-- Returns jobs that have left with their answers, those that left undone, those that are left in the shipment, and the answers that
-- wait for their jobs; nothing if another worker is the steersman.

local lane, shipment, answered, undone = ARGV[2], ARGV[4], 0, 0
if not steers(lane, ARGV[3]) then
  return {}
end

-- The budget has no part in it, so no other job of its model, and no tenant's turn, is to hold it up.
local function answer(id, job, text)
  redis.call('HSET', ANSWERS, id, text)
  job.ship, job.shipment = ANSWERED, shipment
  job.model, job.requests, job.step = '', 0, FRONT
  answered = answered + 1
end

local function land(id, job, text)
  if job.claim ~= '' then
    write_job(id, job) -- an older worker has put it into its line, and somebody works on it
    return
  end
  if text ~= '' then
    answer(id, job, text)
  else
    settle_fare(job, 0)
    undone = undone + 1
  end
  job.since = NOW
  if is_marked(job.task_id, job.batch) then
    end_job(id, job, 'cancelled', '')
    return
  end
  write_job(id, job)
  enter_line(id, job)
end

for i = 6, #ARGV, 2 do
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', cargo_key(shipment), ARGV[i], ARGV[i])) do
    local job = read_job(id)
    if job and leave_shipment(id, job) then
      land(id, job, ARGV[i + 1])
    end
    redis.call('ZREM', cargo_key(shipment), id)
  end
end
if answered + undone > 0 then
  wake(lane)
end
local left = redis.call('ZCARD', cargo_key(shipment))
if ARGV[5] == '1' and left == 0 then
  redis.call('DEL', shipment_key(shipment))
  redis.call('ZREM', key('shipments:' .. lane), shipment)
end
return {answered, undone, left, redis.call('HLEN', ANSWERS)}
