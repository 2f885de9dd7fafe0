-- Claim: move the first jobs of the most important queues into `unacked`, under a lease, in one step. Jobs whose gate is
-- closed stay where they are.
--
-- Returns that are due and jobs whose lease has expired go to the front of their lanes before. Nothing is ever
-- between two places: a worker that dies after this call has the jobs, and their leases will expire.
--
-- KEYS: none; every key is made from the prefix, because which lists are touched depends on what is due.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: separator between a queue's name and a priority step
-- ARGV[3] string: token of this claim
-- ARGV[4] integer: most jobs to claim
-- ARGV[5] integer: ms after which a lease without a sign of life has expired; 0: leave leases alone
-- ARGV[6] integer: deliveries after which a job that was never finished is buried
-- ARGV[7] integer: bytes that a job may have; a longer one is buried
-- ARGV[8] string: priority steps, most important first, as in "0,3,6,9"
-- ARGV[9…] pairs: queue, most important first; "1" if its jobs are to be held, "0" if they are gone once claimed
--
-- Returns an array: ms until the next return is due or the next gate opens (-1: none), then for each job: queue, delivery tag,
-- "1" if it was cancelled, "0" if not, "" if its text does not say which job it is, and the text.

local prefix, separator, token = ARGV[1], ARGV[2], ARGV[3]
local wanted, lease, most_deliveries, most_bytes = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local now = now_ms()
local reply = {-1}

sweep_up(prefix, separator, now, lease, most_deliveries)
local gates, next_open = read_gates(prefix, now)
local has_gates, asides = next(gates) ~= nil, read_asides(prefix)

local function list_of(queue, step)
  return step == '0' and queue or queue .. separator .. step
end

-- Hold the job and return its tag, or bury what nobody could ever finish.
local function accept(queue, list, text, held)
  local tag = tag_of(text)
  if not tag then
    bury_and_tell(prefix, nil, queue, text, 'undecodable: no kombu message', now)
    return nil
  end
  if #text > most_bytes then
    bury_and_tell(prefix, tag, queue, text, 'too large: ' .. #text .. ' bytes of at most ' .. most_bytes, now)
    return nil
  end
  if held then
    hold(prefix, tag, token, list, queue, text, now)
  end
  return tag
end

-- Told along with the job, so that its worker need not ask. Celery's correlation id is the job's id; that of a batch's
-- job is "<batch>-<index>", and its batch may be cancelled as a whole.
local function cancelled(prefix, text)
  local id = field(text, 'correlation_id', '"([^"\\]+)"')
  if not id then
    return ''
  end
  local mark = prefix .. 'lanes:cancel:'
  return redis.call('EXISTS', mark .. id, mark .. string.gsub(id, '%-%d+$', '')) > 0 and '1' or '0'
end

local function is_open(queue, model)
  local gate = gates[queue .. '|' .. model]
  return not gate or gate.open_at <= now
end

-- A stock producer notes no models, so now and then the jobs next in a list are looked at: how many, ms between two looks.
local LOOKED_AT, LOOK_EVERY = 10, 1000
local function look_for_models(list)
  local found = {}
  if redis.call('SET', prefix .. 'lanes:looked:' .. list, '1', 'NX', 'PX', LOOK_EVERY) then
    for i = 2, LOOKED_AT + 1 do
      local text = redis.call('LINDEX', prefix .. list, -i)
      found[#found + 1] = text or nil
    end
    if found[1] then
      note_models(prefix, list, found, 1, #found)
    end
  end
end

-- Whether a list may have a job, behind a closed gate, that could go.
local models_in = {}
local function has_open(queue, list)
  if not models_in[list] then
    look_for_models(list)
    models_in[list] = redis.call('SMEMBERS', models_key(prefix, list))
  end
  for _, model in ipairs(models_in[list]) do
    if is_open(queue, model) then
      return true
    end
  end
  return false
end

-- The first job of a list whose gate is open, and its model; those before it are set aside. The job stays where it is.
-- With `been_out`, of the returned jobs at the list's front only.
local may_set_aside, is_cut_short = MOST_SET_ASIDE, false
local function first_open(queue, list, been_out)
  while true do
    local text = redis.call('LINDEX', prefix .. list, -1)
    if not text then
      redis.call('DEL', models_key(prefix, list))
      return nil
    elseif been_out and not has_been_out(text) then
      return nil
    end
    local model = model_of(text)
    if is_open(queue, model) then
      return text, model
    elseif not has_open(queue, list) then
      return nil
    elseif may_set_aside == 0 then
      is_cut_short = true
      return nil
    end
    set_aside(prefix, queue, list, model, text)
    may_set_aside = may_set_aside - 1
  end
end

-- The model of the oldest of the jobs that stand aside and could go, and when it was submitted.
local function oldest_aside(queue, list)
  local oldest, at = nil, math.huge
  for _, model in ipairs(asides[list] or {}) do
    if is_open(queue, model) then
      local text = redis.call('LINDEX', aside_key(prefix, list, model), -1)
      if text and submitted_at(text) < at then
        oldest, at = model, submitted_at(text)
      end
    end
  end
  return oldest, at
end

-- The next job of a list whose gate is open, nil if there is none. What stands aside is older than the rest of the list,
-- but for what has been out: a job that was denied is older than those that were set aside meanwhile, and comes first.
local function next_job(queue, list)
  if not has_gates and not asides[list] then
    return redis.call('RPOP', prefix .. list), ''
  end
  local text, model = first_open(queue, list, true)
  local aside, at = oldest_aside(queue, list)
  if aside and not (text and submitted_at(text) <= at) then
    return take_from_aside(prefix, queue, list, aside), aside
  end
  if not text then
    text, model = first_open(queue, list, false)
  end
  if text then
    redis.call('RPOP', prefix .. list)
  end
  return text, model
end

local function claim_from(queue, list, held)
  while wanted > 0 do
    local text, model = next_job(queue, list)
    if not text then
      break
    end
    local tag = accept(queue, list, text, held)
    if tag then
      reply[#reply + 1] = queue
      reply[#reply + 1] = tag
      reply[#reply + 1] = cancelled(prefix, text)
      reply[#reply + 1] = text
      wanted = wanted - 1
      next_open = math.min(next_open or math.huge, pass(prefix, gates, queue .. '|' .. model, now) or math.huge)
    end
  end
  if is_cut_short or wanted == 0 and redis.call('EXISTS', prefix .. list) == 1 then
    ring(prefix, queue) -- there is more: for this worker's next claim, or another that has a slot free
    is_cut_short = false
  end
end

for i = 9, #ARGV, 2 do
  for step in string.gmatch(ARGV[8], '[^,]+') do
    if wanted > 0 then
      claim_from(ARGV[i], list_of(ARGV[i], step), ARGV[i + 1] == '1')
    end
  end
end
local next_due = redis.call('ZRANGE', prefix .. 'lanes:returns', 0, 0, 'WITHSCORES')[2]
next_due = math.min(tonumber(next_due) or math.huge, next_open or math.huge)
if next_due < math.huge then
  reply[1] = math.max(0, math.ceil(next_due - now))
end
return reply
