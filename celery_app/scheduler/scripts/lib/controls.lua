-- Library (uses clock, jobs): what operators have changed while all runs: pauses, limits, the lanes' rules, weights. It is
-- stronger than what workers and publishers bring along.
--
-- The hash `controls` has a field for each of them and, in `decision`, all of them as the scripts need them: one read, made
-- anew by control.lua with each change.

local CONTROLS = key('controls')

-- pauses: lane -> {till (ms since the epoch; 0: until somebody resumes it), parts (nil: of all models)}, …
-- draining: lane -> who drains it. lanes: lane -> floor, share, capacity. weights: tenant -> weight
-- models: pattern, parts, variant (parts, too; nil: it names none), limits (as in terms); in the order in which they count
local decision

local NONE = {}

local function read_decision()
  local text = redis.call('HGET', CONTROLS, 'decision')
  local fine, known = false, nil
  if text then
    fine, known = pcall(cmsgpack.unpack, text)
  end
  return fine and type(known) == 'table' and known.pauses and known
    or {pauses = NONE, draining = NONE, lanes = NONE, weights = NONE, models = NONE}
end

local function controls()
  decision = decision or read_decision()
  return decision
end

-- What is set of a lane.
local function set_of(lane)
  return controls().lanes[lane] or NONE
end

-- Whether a name is like a pattern of fnmatch; parts: what stands between its stars, as patterns of Lua. The first place
-- where a part fits is the best, so this takes no longer for many stars.
local function is_like(name, parts)
  local at = 1
  for i, part in ipairs(parts) do
    local _, last = string.find(name, (i == 1 and '^' or '') .. part .. (i == #parts and '$' or ''), at)
    if not last then
      return false
    end
    at = last + 1
  end
  return true
end

-- A model's name, and its variant or nil.
local function split_model(name)
  local model, variant = string.match(name, '^(.+)%+(%l[%l%d-]*)$')
  return model or name, variant
end

-- The pause of a lane's jobs of a model, or nil.
local function pause_of(lane, model)
  for _, pause in ipairs(controls().pauses[lane] or NONE) do
    local runs = pause.till == 0 or pause.till > NOW
    if runs and (not pause.parts or is_like(model, pause.parts) or is_like((split_model(model)), pause.parts)) then
      return pause
    end
  end
end

-- Limits that were set for the models of a pattern count for those of the environment's pattern of that name, and before any
-- other of its patterns. "*" is for models that no pattern of the environment names.
local function is_for(set, terms, model, variant)
  if set.variant then
    return variant and is_like(variant, set.variant) and is_like(model, set.parts)
  elseif set.pattern == '*' then
    return terms.pattern == '' or terms.pattern == '*'
  end
  return not string.find(terms.pattern, '+', 1, true) and is_like(model, set.parts)
end

-- The terms of a budget with what operators have set; what they have not set stays. Models of another pattern than before are
-- another family, with a budget of its own.
local function terms_in_force(terms)
  if not controls().models[1] then
    return terms
  end
  terms.pattern = type(terms.pattern) == 'string' and terms.pattern or '' -- an earlier version has written them
  local model, variant = split_model(terms.model)
  for _, set in ipairs(controls().models) do
    if is_for(set, terms, model, variant) then
      for limit, value in pairs(set.limits) do
        terms[limit] = value
      end
      terms.family = set.pattern .. (variant and not set.variant and '+' .. variant or '')
      terms.mixed = string.match(terms.family, '^[^+]*') == '*'
      terms.name = string.match(terms.name, '^[^:]*') .. ':' .. terms.family
      return terms
    end
  end
  return terms
end
