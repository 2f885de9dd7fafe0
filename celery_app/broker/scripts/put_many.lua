-- Put many: add the next jobs of a batch to a queue, as many as there is room for, and wake a worker. Repeating it
-- with the same arguments adds none twice, so a publisher may do so when an answer was lost.
--
-- KEYS[1…n] lists: of the queue, one for each priority step
-- KEYS[n + 1] hash: the batch; field `queued` counts its jobs that have been put
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: queue
-- ARGV[3] integer: which of KEYS takes the jobs, from 1
-- ARGV[4] integer: capacity, jobs in all lists and scheduled together
-- ARGV[5] integer: seconds after which the batch is forgotten if nothing happens to it
-- ARGV[6] integer: number of the first of these jobs within its batch, from 0
-- ARGV[7…] strings: the jobs, at most a few hundred
--
-- Returns how many of these jobs are in their places now, and the number of jobs that were queued or scheduled before.

local prefix, queue, list, capacity, first = ARGV[1], ARGV[2], KEYS[tonumber(ARGV[3])], tonumber(ARGV[4]), tonumber(ARGV[6])
local batch = KEYS[#KEYS]
local depth = depth_of(prefix, queue, KEYS, #KEYS - 1)
local there = math.max(0, tonumber(redis.call('HGET', batch, 'queued') or '0') - first)
local last = math.min(#ARGV - 6, there + math.max(0, capacity - depth))
if last > there then
  redis.call('LPUSH', list, unpack(ARGV, 7 + there, 6 + last))
  note_models(prefix, string.sub(list, #prefix + 1), ARGV, 7 + there, 6 + last)
  redis.call('HSET', batch, 'queued', first + last)
  redis.call('EXPIRE', batch, ARGV[5])
  ring(prefix, queue)
end
return {math.max(there, last), depth}
