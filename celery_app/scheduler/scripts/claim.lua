-- Claim: hand a worker the jobs that may go now, each out of its line, under a lease, its cost reserved.
--
-- What is due or was abandoned returns to its place before. Nothing is ever between two places: a worker that dies after
-- this call has the jobs, and their leases will be over.
--
-- KEYS: none; every key is made from the prefix, because which are touched depends on what is due.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: token of this claim, "<process>:<number>"
-- ARGV[3] integer: most jobs to claim
-- ARGV[4] integer: ms after which a lease without a sign of life is over; 0: leave leases alone
-- ARGV[5] integer: ms for which the worker sleeps at most
-- ARGV[6] integer: 1 if the process holds a suspect, else 0
-- ARGV[7] string: separator between a queue's name and a priority step. ARGV[8] string: priority steps, as in "0,3,6,9"
-- ARGV[9] integer: number n of the worker's other queues; ARGV[10…9+2n] pairs: a queue, and "2" or "1" as below
-- ARGV[10+2n…] for each lane, most important first: name, floor, share, ms until its head is boosted (-1: never), and "2" if
--   this worker serves it, "1" if it will not acknowledge what it gets, so that it is gone once claimed, "0" if it does not
--
-- Returns: ms after which to look again (-1: at a wakeup); 1 if a stock producer has left messages in a lane's lists;
-- the models of which no worker has written down the budget, as lane, model, …; the jobs, each an array: queue, id,
-- text (false: it has a key of its own), 1 if it was cancelled, tries, 1 if it has been out, ms since its submission, ms until
-- its deadline (-1: none), timeouts, refused_at, model, the ticket of what was reserved for that ('' for none), verdict, 1 if
-- it is a suspect, ms for which it could have started and was queued.

local token, wanted, longest = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[5]) * 1000
local process = string.match(ARGV[2], '^[^:]*')
local has_suspect, own_queues = ARGV[6] == '1', tonumber(ARGV[9])
local lanes = read_lanes(10 + 2 * own_queues)
local next_look, claimed, unknown = math.huge, {}, {}

-- What stands behind a queue's name in the names of its lists.
local endings = {}
for step in string.gmatch(ARGV[8], '%d+') do
  endings[#endings + 1] = step == '0' and '' or ARGV[7] .. step
end

-- Whether a stock producer has put something into a list of a lane that this worker serves.
local function has_arrivals()
  local lists = {}
  for _, lane in ipairs(lanes) do
    if lane.served then
      for _, ending in ipairs(endings) do
        lists[#lists + 1] = ARGV[1] .. lane.name .. ending
      end
      lists[#lists + 1] = key('arrived:' .. lane.name)
    end
  end
  return lists[1] and redis.call('EXISTS', unpack(lists)) > 0
end

local function told(id, job, queue, head)
  local text = job.large == 0 and redis.call('HGET', TEXTS, id) or false
  local left = job.deadline > 0 and math.max(0, job.deadline - NOW) or -1
  local cancelled = head and (head.cancelled or redis.call('EXISTS', key('cancel:' .. job.task_id)) == 1) and 1 or 0
  return {queue, id, text, cancelled, job.tries, job.out, math.max(0, NOW - job.submitted), left, job.timeouts,
    text_of(job.refused_at), job.model, job.ticket, head and head.verdict or '', is_suspect(job) and 1 or 0,
    math.max(0, NOW - math.max(job.submitted, job.since or 0))}
end

local function hand_over(id, job, queue, held, head)
  if held then
    register(id, job, token)
  end
  claimed[#claimed + 1] = told(id, job, queue, head)
  if not held then
    finish(id, job)
  end
end

-- Read again which jobs may go; a process with a suspect passes the others. Where no more are wanted, the question is only
-- whether anybody else may have one: what stands behind a job that was taken is supposed to be like it.
local function look_again(head)
  if wanted == 0 and head.taken and not has_suspect and not head.first then
    head.lane.heads[head.model] = redis.call('EXISTS', tenants_key(head.lane.name, head.model)) == 1 and head or nil
    return
  end
  for _, lane in ipairs(head.first and lanes or {head.lane}) do -- the first of a prefix has others wait, in each lane
    lane.heads[head.model] = lane.heads[head.model] and read_head(lane, head.model)
  end
  for _, lane in ipairs(has_suspect and lanes or {}) do
    read_beside(lane)
  end
end

local function take(head)
  local job, id, lane = head.job, head.id, head.lane
  leave_line(id, job)
  local seconds = head.cost and seconds_of(head.budget, head.cost) or 0
  if head.cost and not head.verdict and lane.held then
    job.budget = head.budget.name
    job.ticket = reserve(head.budget, lane, job, head.cost, token .. '|' .. id)
    head.first = go_first(head.budget, job, token .. '|' .. id)
    drop_budget(head.budget)
    let_in_more(job, head.budget.terms)
  end
  share_out(lanes, head, head.seconds)
  take_turn(head, seconds)
  has_suspect = has_suspect or is_suspect(job)
  hand_over(id, job, lane.name, lane.held, head)
  wanted, head.taken = wanted - 1, true
  look_again(head)
end

-- Note that a head is held back by requests: only then may a rate that was found by trying grow.
local function press(head, wait)
  local state = head.budget.state
  if state.rate and (state.pressed_until or 0) < NOW_US + SECOND then
    state.pressed_until = NOW_US + wait + PRESSED
    remember(state)
    drop_budget(head.budget)
  end
end

-- Whether the deadline of a job that is still queued passes before it may leave; wait: µs.
local function is_hopeless(head, wait)
  return head.job and not head.taken and head.job.deadline > 0 and NOW + wait / 1000 > head.job.deadline
end

-- The first head that this worker may be handed, or nil; `soonest` is the one of its lanes that waits for the shortest time,
-- `hopeless` are those whose deadlines pass before the API wants to be called again.
local soonest, soonest_wait, hopeless
local function choose(waiters)
  soonest, soonest_wait, hopeless = nil, math.huge, {}
  return walk(lanes, waiters, function(head, wait, short)
    if wait > 0 then
      if short == 'requests' then
        press(head, wait)
      elseif short == 'closed' and is_hopeless(head, wait) then
        hopeless[#hopeless + 1] = head
      end
      if head.lane.served and not head.slot and wait < soonest_wait then
        soonest, soonest_wait = head, wait
      end
      return false
    end
    return head.lane.served and not head.slot and not (has_suspect and is_suspect(head.job))
  end)
end

-- Whoever waits for these learns so now; of as many as there are models at a time. Returns whether there were any.
local function end_hopeless()
  for _, head in ipairs(hopeless) do
    leave_line(head.id, head.job)
    end_job(head.id, head.job, 'deadline', account_refused(head.job))
    look_again(head)
  end
  return hopeless[1] ~= nil
end

local function take_jobs()
  local waiters = read_waiters(lanes)
  while true do
    local head = choose(waiters)
    if end_hopeless() then
      head = choose(waiters) -- those behind them are heads now
    end
    if not head then
      break
    elseif wanted == 0 then
      wake(head.lane.name) -- there is more: for this worker's next claim, or another that has a slot free
      break
    end
    take(head)
  end
end

local function take_own_messages()
  for i = 10, 9 + 2 * own_queues, 2 do
    for _, ending in ipairs(endings) do
      while wanted > 0 do
        local id, job = take_own(ARGV[i], ARGV[i] .. ending)
        if not id then
          break
        end
        hand_over(id, job, ARGV[i], ARGV[i + 1] == '2')
        wanted = wanted - 1
      end
    end
  end
end

local function note_unknown()
  for _, lane in ipairs(lanes) do
    for model, head in pairs(lane.heads) do
      if head.unknown and lane.served then
        unknown[#unknown + 1] = lane.name
        unknown[#unknown + 1] = model
      end
    end
  end
end

reap(tonumber(ARGV[4]))
wake_due()
end_overdue()
for _, lane in ipairs(lanes) do
  read_heads(lane)
  if has_suspect then
    read_beside(lane)
  end
end
take_jobs()
take_own_messages()
note_unknown()
if soonest then
  next_look = moment_for(process, soonest, soonest_wait, longest)
end
local due = redis.call('ZRANGE', SCHEDULED, 0, 0, 'WITHSCORES')[2]
for _, lane in ipairs(lanes) do
  next_look = lane.more and lane.served and 0 or next_look
end
next_look = math.min(next_look, due and (tonumber(due) - NOW) * 1000 or math.huge)
local look = next_look < math.huge and math.max(0, math.ceil(next_look / 1000)) or -1
return {look, has_arrivals() and 1 or 0, unknown, claimed}
