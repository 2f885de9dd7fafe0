-- Library: the fields of a budget's hash, as numbers where they are numbers.

-- Seconds after which an unused budget is forgotten. By then every bucket is full, and what was learned is stale.
local KEPT = 86400

-- Lua's own conversion would keep 14 digits: too few for microseconds since the epoch.
local function text_of(value)
  return type(value) == 'number' and string.format('%.17g', value) or value
end

-- The named fields of a hash; what it does not have is nil. `state.was` has them as they were read. `fields`: name -> field
-- of those that are stored under another name.
local function recall(key, names, fields)
  local asked, state, was = {}, {fields = fields or {}}, {}
  for i, name in ipairs(names) do
    asked[i] = state.fields[name] or name
  end
  local values = redis.call('HMGET', key, unpack(asked))
  for i, name in ipairs(names) do
    if values[i] then
      was[name] = tonumber(values[i]) or values[i]
      state[name] = was[name]
    end
  end
  state.was = was
  return state
end

-- Write back those of the named fields that have changed; those that are nil now are deleted.
local function remember(key, state, names)
  local set, gone = {}, {}
  for _, name in ipairs(names) do
    local value, field = state[name], state.fields[name] or name
    if value == nil and state.was[name] then
      gone[#gone + 1] = field
    elseif value ~= state.was[name] then
      set[#set + 1] = field
      set[#set + 1] = text_of(value)
    end
  end
  if set[1] then
    redis.call('HSET', key, unpack(set)) -- first: a server out of memory refuses it, and nothing has been written then
  end
  if gone[1] then
    redis.call('HDEL', key, unpack(gone))
  end
  redis.call('EXPIRE', key, KEPT)
end
