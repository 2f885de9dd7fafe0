-- Control: change something while all runs, for all workers and publishers at once. Whoever writes down a control writes it
-- here.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: who does it
-- ARGV[3…] triples: name, value, and ms for which that lasts (0: until it is taken away); an empty value takes it away. Names:
--   "pause|<lane>|<pattern of models, or ''>" and "drain|<lane>|", value 1
--   "lane|floor|<lane>", the same with share and capacity
--   "model|rpm|<pattern of models>", the same with itpm, otpm, rpd, itpd, otpd, concurrency; value 0: no limit
--   "cap|<kind>|<whose>", as lib/quota.lua has them; value in nanodollars, -1: none
--   "weight|tenant|<tenant>"
--
-- In the hash each is JSON: value, by, at and till (ms since the epoch; till 0: for good). `revision` counts the changes.
--
-- Returns the revision, and how many have changed. Nothing is changed, and -1 returned in place of that, if they were too many.

-- Each claim reads them all.
local MOST_CONTROLS = 200

local LIMITS = {rpm = 'requests', itpm = 'input_tokens', otpm = 'output_tokens', concurrency = 'calls', rpd = BY_DAY.requests,
  itpd = BY_DAY.input_tokens, otpd = BY_DAY.output_tokens}

-- name -> what is known of it.
local function read_controls()
  local found, fields = {}, redis.call('HGETALL', CONTROLS)
  for i = 1, #fields, 2 do
    local fine, control = pcall(cjson.decode, fields[i + 1])
    if string.find(fields[i], '|', 1, true) and fine and type(control) == 'table' then
      found[fields[i]] = control
    end
  end
  return found
end

-- A pattern of fnmatch, as lib/controls.lua compares it.
local function parts_of(pattern)
  local parts, part, at = {}, '', 1
  while at <= #pattern do
    local negated, class = string.match(pattern, '^%[(!?)(%]?[^%]]*)%]', at)
    local char = string.sub(pattern, at, at)
    if class and class ~= '' then
      part = part .. '[' .. (negated == '!' and '^' or '') .. string.gsub(class, '[^%w%-]', '%%%0') .. ']'
      at = at + #negated + #class + 1
    elseif char == '*' then
      parts[#parts + 1], part = part, ''
    else
      part = part .. (char == '?' and '.' or string.gsub(char, '%W', '%%%0'))
    end
    at = at + 1
  end
  parts[#parts + 1] = part
  return parts
end

local function change(found, name, value, lasts)
  local was = found[name]
  if value == '' then
    found[name] = nil
    return redis.call('HDEL', CONTROLS, name)
  end
  local till = lasts > 0 and NOW + lasts or 0
  if was and was.value == tonumber(value) and was.till == till then
    return 0
  end
  found[name] = {value = tonumber(value), by = ARGV[2], at = NOW, till = till}
  redis.call('HSET', CONTROLS, name, cjson.encode(found[name]))
  return 1
end

-- Those whose time is over are forgotten.
local function drop_past(found)
  for name, control in pairs(found) do
    if control.till > 0 and control.till <= NOW then
      found[name] = nil
      redis.call('HDEL', CONTROLS, name)
    end
  end
end

local function limits_of(models, pattern)
  if not models[pattern] then
    local model, variant = string.match(pattern, '^(.*)%+([^+]*)$')
    models[pattern] = {pattern = pattern, parts = parts_of(model or pattern), variant = variant and parts_of(variant), limits = {}}
  end
  return models[pattern].limits
end

-- Those that name a variant first; then the longer ones, which name fewer models.
local function counts_before(one, other)
  if (one.variant == nil) ~= (other.variant == nil) then
    return one.variant ~= nil
  elseif #one.pattern ~= #other.pattern then
    return #one.pattern > #other.pattern
  end
  return one.pattern < other.pattern
end

local function decision_of(found)
  local made, models = {pauses = {}, draining = {}, lanes = {}, weights = {}, models = {}}, {}
  for name, control in pairs(found) do
    local kind, one, other = string.match(name, '^(%a+)|([^|]*)|(.*)$')
    if kind == 'pause' then
      made.pauses[one] = made.pauses[one] or {}
      table.insert(made.pauses[one], {till = control.till, parts = other ~= '' and parts_of(other) or nil})
    elseif kind == 'drain' then
      made.draining[one] = control.by
    elseif kind == 'lane' then
      made.lanes[other] = made.lanes[other] or {}
      made.lanes[other][one] = control.value
    elseif kind == 'weight' then
      made.weights[other] = control.value
    elseif kind == 'cap' then
      made.caps = made.caps or {}
      made.caps[one .. '|' .. other] = control.value
    elseif kind == 'model' and LIMITS[one] then
      limits_of(models, other)[LIMITS[one]] = control.value
    end
  end
  for _, set in pairs(models) do
    made.models[#made.models + 1] = set
  end
  table.sort(made.models, counts_before)
  return made
end

-- How many there will be.
local function number_with_changes(found)
  local names, number = {}, 0
  for name in pairs(found) do
    names[name] = true
  end
  for i = 3, #ARGV, 3 do
    names[ARGV[i]] = ARGV[i + 1] ~= '' or nil
  end
  for _ in pairs(names) do
    number = number + 1
  end
  return number
end

local found, changed, of_tenants = read_controls(), 0, false
drop_past(found)
if number_with_changes(found) > MOST_CONTROLS then
  return {tonumber(redis.call('HGET', CONTROLS, 'revision') or '0'), -1}
end
for i = 3, #ARGV, 3 do
  changed = changed + change(found, ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]))
end
if next(found) then
  redis.call('HSET', CONTROLS, 'decision', cmsgpack.pack(decision_of(found)))
else
  redis.call('HDEL', CONTROLS, 'decision')
end
for i = 3, #ARGV, 3 do
  local cap = string.match(ARGV[i], '^cap|(.*)$')
  of_tenants = of_tenants or cap and string.match(cap, '^tenant|') ~= nil
  if cap then
    let_in(quota_of(cap))
  end
end
for lane in pairs(of_tenants and LANES or {}) do
  bring_all_back(lane)
end
for lane in pairs(changed > 0 and LANES or {}) do
  wake(lane) -- somebody may go who could not before
end
return {redis.call('HINCRBY', CONTROLS, 'revision', changed > 0 and 1 or 0), changed}
