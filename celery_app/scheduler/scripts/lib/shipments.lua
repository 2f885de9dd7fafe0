-- Library (uses clock, jobs, wakeup, controls, lines, scheduled): jobs that go to the API as parts of a batch of its own, at half the
-- price, within a day.
--
-- A job that may be shipped waits in `scheduled` for a worker to ship it; if none does, it goes live when that time is over. One
-- worker at a time does so for a lane, its steersman. A shipment is a hash; its jobs are in a sorted set by their numbers
-- in the API's batch, and in `shipped` with those of all others.

-- ms for which a job can wait at least if it may be shipped: the API's batches take an hour or less, mostly.
local WAITS_FOR = 3600000

-- ms for which a job waits to be shipped: a killed steersman's successor needs half a minute.
local HELD_FOR = 300000

-- Behind the numbers of all jobs; those that a cap keeps back stand there by when they were looked at, in ms.
local BEHIND = 2 ^ 52

-- Sorted set: the jobs in all shipments, by the time of shipping.
local SHIPPED_JOBS = key('shipped')

local function hold_for_shipping(id, job)
  redis.call('ZADD', may_ship_key(job.lane, job.model), job.number, id)
  redis.call('SADD', key('may_ship:' .. job.lane), job.model)
  schedule(id, job, HELD_FOR)
end

-- Whether this token is the steersman's.
local function steers(lane, token)
  return redis.call('GET', key('steers:' .. lane)) == token
end

local function shipment_key(shipment)
  return key('shipment:' .. shipment)
end

local function cargo_key(shipment)
  return key('shipment:' .. shipment .. ':jobs')
end

-- Put a job that is in no place into a shipment.
local function enter_shipment(id, job, shipment, number)
  job.ship, job.shipment = SHIPPED, shipment
  write_job(id, job)
  redis.call('ZADD', SHIPPED_JOBS, NOW, id)
  redis.call('ZADD', cargo_key(shipment), number, id)
  if job.deadline > 0 then
    redis.call('ZADD', DEADLINES, job.deadline, id)
  end
  count(job.lane, 'shipped', 1)
end

-- Take a job out of its shipment; returns whether it was in one. Its record is the caller's to write.
local function leave_shipment(id, job)
  if job.ship ~= SHIPPED or redis.call('ZREM', SHIPPED_JOBS, id) == 0 then
    return false
  end
  redis.call('ZREM', cargo_key(job.shipment), id)
  redis.call('ZREM', DEADLINES, id)
  count(job.lane, 'shipped', -1)
  job.ship, job.shipment = LIVE, ''
  return true
end
