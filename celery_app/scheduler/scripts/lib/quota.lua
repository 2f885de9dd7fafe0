-- Library (uses clock, jobs, state, bucket, controls): amounts with a limit for a window that ends at a set time: money that calls may cost, and
-- what a budget may use of its model's API in a day.
--
-- A quota is a hash with what was spent in its window, reservations included, and when that ends. Its name is "<kind>|<whose>": a cap
-- on money has one of all|, lane|<lane>, tenant|<tenant>, batch|<batch>, the last one without an end; model|<budget> is a budget's day.
-- A window that is over is begun anew by whoever looks next, so nothing has to happen at midnight. A reservation bears the end of its
-- window: what is settled later than that changes no other window.

-- Hash: name of a cap -> nanodollars, as the settings say. Operators' ones are in the controls.
local CAPS = key('caps')

-- Sorted set: the ends of the next days in ms, in the time zone of the settings; without it, and beyond it, days have 24 hours.
local DAYS = key('days')

-- Milliseconds: of a day, and of the longest, when summer time ends, and an hour more.
local DAY, LONGEST_DAY = 86400000, 93600000

-- Seconds that a quota is kept that nobody uses: a batch's jobs may wait for that long.
local QUOTA_KEPT = 35 * 86400

-- The server's own clock, in ms: the one that says when a day is over. It may be put back, and then the day is longer.
local WALL = math.floor((NOW_US - AHEAD) / 1000)

local MONEY = {'usd'}

-- Limits of a day in a budget's terms (lib/budgets.lua), which are there where somebody has set them.
local BY_DAY = {requests = 'requests_day', input_tokens = 'input_tokens_day', output_tokens = 'output_tokens_day'}

local day_end, quotas, limits = nil, {}, {}

local function end_of_day()
  if not day_end then
    day_end = tonumber(redis.call('ZRANGEBYSCORE', DAYS, '(' .. WALL, '+inf', 'LIMIT', 0, 1)[1] or '')
    local last = not day_end and tonumber(redis.call('ZRANGE', DAYS, -1, -1)[1] or '0')
    day_end = day_end or last + (math.floor((WALL - last) / DAY) + 1) * DAY
  end
  return day_end
end

local function begin_anew(quota)
  for amount in pairs(quota.used) do
    quota.used[amount] = 0
  end
  quota.till, quota.aside = end_of_day(), nil
end

-- A quota as it is now: used: amount -> units; till: ms by the server's clock, 0: no end; aside: what it covers may be set aside.
local function quota_of(name)
  local quota = quotas[name]
  if quota then
    return quota
  end
  local kind = string.match(name, '^[^|]*')
  local amounts = kind == 'model' and DIMENSIONS or MONEY
  local values = redis.call('HMGET', key('quota:' .. name), 'till', 'aside', unpack(amounts))
  quota = {name = name, till = tonumber(values[1] or '0'), aside = values[2], used = {}}
  for i, amount in ipairs(amounts) do
    quota.used[amount] = tonumber(values[i + 2] or '0')
  end
  if kind ~= 'batch' and quota.till <= WALL then
    begin_anew(quota)
  elseif quota.till > WALL + LONGEST_DAY then
    quota.till = end_of_day() -- the clock was wrong when it began
  end
  quotas[name] = quota
  return quota
end

local function keep_quota(quota)
  local fields = {'till', text_of(quota.till), 'aside', quota.aside or ''}
  for amount, used in pairs(quota.used) do
    fields[#fields + 1], fields[#fields + 2] = amount, text_of(used)
  end
  redis.call('HSET', key('quota:' .. quota.name), unpack(fields))
  redis.call('EXPIRE', key('quota:' .. quota.name), QUOTA_KEPT)
end

-- Microseconds until a quota's window ends; an end by the server's clock as one by ours.
local function until_end(quota)
  return (quota.till - WALL) * 1000
end

local function has_caps(terms)
  return terms.caps or controls().caps
end

-- What a cap allows, in nanodollars, or nil; given: where nobody has named it.
local function limit_of(terms, name, given)
  if limits[name] == nil then
    local set = controls().caps and controls().caps[name]
    limits[name] = set or terms.caps and tonumber(redis.call('HGET', CAPS, name) or '') or given or false
  end
  local limit = limits[name]
  return limit and limit >= 0 and limit or nil -- operators write -1 for none
end

-- What a job's calls count for, the widest first, each: name, limit (nil: none), covers: whether that pauses the job. All that has a price is
-- counted, so that a cap that is set at noon knows of the morning. The most important lane is covered by a cap of its own alone, and by that of a batch;
-- the others' money is counted with it.
local function caps_of(lane, job, terms)
  if not has_caps(terms) and job.usd == 0 and job.cap == 0 then
    return NONE
  end
  local found, others = {}, lane.rank > 1
  local function add(name, covers, given)
    found[#found + 1] = {name = name, limit = limit_of(terms, name, given), covers = covers}
  end
  add('all|', others)
  add('lane|' .. lane.name, true)
  if job.tenant ~= '' then
    add('tenant|' .. job.tenant, others, limit_of(terms, 'tenant|*'))
  end
  if job.batch ~= '' then
    add('batch|' .. job.batch, true, job.cap > 0 and job.cap or nil)
  end
  return found
end

-- A text without blanks, semicolons and bars; and back.
local function escaped(text)
  return (string.gsub(text, '[^%w|_.:{}-]', function(char)
    return string.format('%%%02X', string.byte(char))
  end))
end

local function unescaped(text)
  return (string.gsub(text, '%%(%x%x)', function(hex)
    return string.char(tonumber(hex, 16))
  end))
end

-- A quota that is used up, for people: its name, what, used, the limit, and its end, ms by the server's clock (0: none).
local function told_of(quota, amount, limit)
  return string.format('%s %s %.0f %.0f %.0f', escaped(quota.name), amount, quota.used[amount], limit, quota.till)
end

-- The cap that keeps a job back, or nil: quota, limit, and as of a pause, when that ends (ms by our clock; 0: when somebody raises it).
local function cap_reached(lane, job, terms)
  for _, cap in ipairs(caps_of(lane, job, terms)) do
    local quota = cap.limit and cap.covers and quota_of(cap.name)
    if quota and (quota.used.usd >= cap.limit or quota.used.usd + job.usd > cap.limit) then
      return {quota = quota, told = told_of(quota, 'usd', cap.limit),
        till = quota.till > 0 and NOW + math.ceil(until_end(quota) / 1000) or 0}
    end
  end
end

-- Microseconds until a budget's day has room for a cost, what is short of, and that for people; 0: it has.
--
-- What is left of the day is kept by the floors as that of a minute is: a lane's floor times the limit, times what is left of the day. So at midnight
-- batch may use half, then as much as time passes, and at the end of the day all: it costs no throughput, and whenever a critical job
-- comes, it finds its part of the hours that are left.
local function wait_for_day(terms, cost, floor)
  local longest, short, told = 0, nil, nil
  for amount, field in pairs(BY_DAY) do
    local limit = terms[field] or 0
    if limit > 0 and cost[amount] > 0 then
      local quota = quota_of('model|' .. terms.name)
      local left = limit - quota.used[amount] - math.min(cost[amount], limit)
      local missing = floor * limit * math.min(1, (quota.till - WALL) / DAY) - left
      local wait = left < -ROUNDING and until_end(quota) or missing > ROUNDING and missing / (floor * limit) * DAY * 1000 or 0
      if wait > longest then
        longest, short, told = wait, field, told_of(quota, amount, limit)
      end
    end
  end
  return longest, short, told
end

-- Take a call's cost out of all quotas that it counts for. Returns what its ticket has of that: '', or nanodollars and for each quota the end of
-- its window and its name.
local function charge(lane, job, terms, cost)
  local parts = {}
  local function take(name, costs)
    local quota = quota_of(name)
    for amount, used in pairs(quota.used) do
      quota.used[amount] = used + costs[amount]
    end
    keep_quota(quota)
    parts[#parts + 1] = string.format('%.0f:%s', quota.till, escaped(name))
  end
  for _, field in pairs(BY_DAY) do
    if (terms[field] or 0) > 0 and not parts[1] then
      take('model|' .. terms.name, cost)
    end
  end
  for _, cap in ipairs(caps_of(lane, job, terms)) do
    take(cap.name, job)
  end
  return parts[1] and ';' .. text_of(job.usd) .. ';' .. table.concat(parts, ';') or ''
end

-- Replace what a ticket has taken of its quotas by what was used; used: a function, amount -> units; freed(quota): is called with each that has
-- more room now. Returns whether there is any.
local function correct_quotas(ticket, used, freed)
  local more = false
  for till, name in string.gmatch(ticket.quotas, '(%d+):([^;]+)') do
    local quota, less = quota_of(unescaped(name)), false
    if quota.till == tonumber(till) then
      for amount, before in pairs(quota.used) do
        local back = ticket.taken[amount] - used(amount)
        quota.used[amount] = math.max(0, before - back)
        less = less or back > 0
      end
      keep_quota(quota)
      if less then
        more = true
        freed(quota)
      end
    end
  end
  return more
end
