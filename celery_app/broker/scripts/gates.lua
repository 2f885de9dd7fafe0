-- Library (uses message, front): gates, and the jobs that stand aside at closed ones.
--
-- A gate says "this lane's jobs of this model cannot be admitted before time T". A closed one keeps them in the broker,
-- in order, without a slot. In a lane with several models its jobs are set aside, so that those of another model behind
-- them are not held up; once it opens, they go first.

-- Jobs set aside by one claim: bounds the time the server is blocked; the next claim goes on.
local MOST_SET_ASIDE = 200

-- Milliseconds for which a gate that has opened is remembered: each job that passes closes it again for its pace
-- meanwhile, because the one that passes will most likely find the budget used up, and those behind it would, too.
local REMEMBERED = 1000

-- gates: "lane|model" -> open_at, ms since the epoch, which may have passed; pace, ms. next_open: ms, or nil.
local function read_gates(prefix, now)
  local gates, next_open = {}, nil
  local entries = redis.call('HGETALL', prefix .. 'lanes:gates')
  for i = 1, #entries, 2 do
    local open_at, pace = string.match(entries[i + 1], '^(%d+) (%d+)$')
    open_at = tonumber(open_at)
    if not open_at or open_at + REMEMBERED < now then
      redis.call('HDEL', prefix .. 'lanes:gates', entries[i])
    else
      gates[entries[i]] = {open_at = open_at, pace = tonumber(pace)}
      if open_at > now and (not next_open or open_at < next_open) then
        next_open = open_at
      end
    end
  end
  return gates, next_open
end

-- A job passes: the gate is closed for its pace. Returns when it opens, or nil where there is no gate.
local function pass(prefix, gates, name, now)
  local gate = gates[name]
  if not gate then
    return nil
  end
  gate.open_at = now + gate.pace
  redis.call('HSET', prefix .. 'lanes:gates', name, string.format('%.0f %.0f', gate.open_at, gate.pace))
  return gate.open_at
end

local function aside_key(prefix, list, model)
  return prefix .. 'lanes:aside:' .. list .. '|' .. model
end

-- Put a list's first job aside, behind those that are there, or in front of them if it has been out.
local function set_aside(prefix, queue, list, model, text)
  local aside = aside_key(prefix, list, model)
  redis.call('RPOP', prefix .. list)
  if has_been_out(text) then
    put_in_front(aside, {text})
  else
    redis.call('LPUSH', aside, text)
  end
  redis.call('HSET', prefix .. 'lanes:asides', list .. '|' .. model, queue)
  redis.call('HINCRBY', prefix .. 'lanes:aside_depth', queue, 1)
end

-- list -> models of which jobs stand aside.
local function read_asides(prefix)
  local models_of = {}
  for _, name in ipairs(redis.call('HKEYS', prefix .. 'lanes:asides')) do
    local list, model = string.match(name, '^([^|]*)|(.*)$')
    models_of[list] = models_of[list] or {}
    table.insert(models_of[list], model)
  end
  return models_of
end

local function take_from_aside(prefix, queue, list, model)
  local aside = aside_key(prefix, list, model)
  local text = redis.call('RPOP', aside)
  if text then
    redis.call('HINCRBY', prefix .. 'lanes:aside_depth', queue, -1)
  end
  if redis.call('EXISTS', aside) == 0 then
    redis.call('HDEL', prefix .. 'lanes:asides', list .. '|' .. model)
  end
  return text
end
