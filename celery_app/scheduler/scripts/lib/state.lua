-- Library (uses clock): what is known of a budget, as numbers where they are numbers. It lies in two hashes: what all of its
-- models share, and what is known of one model.

-- Seconds after which what nobody uses is forgotten. By then every bucket is full, and what was learned is stale.
local KEPT = 86400

-- Lua's own conversion would keep 14 digits: too few for microseconds since the epoch.
local function text_of(value)
  return type(value) == 'number' and string.format('%.17g', value) or value
end

-- The named fields; what a hash does not have is nil. homes: key of a hash -> names of its fields. `state.was` has them as they
-- were read, `state.homes` the homes.
local function recall(homes)
  local state, was = {homes = homes}, {}
  for home, names in pairs(homes) do
    local values = redis.call('HMGET', home, unpack(names))
    for i, name in ipairs(names) do
      if values[i] then
        was[name] = tonumber(values[i]) or values[i]
        state[name] = was[name]
      end
    end
  end
  state.was = was
  return state
end

local function remember_in(home, names, state)
  local set, gone, was = {}, {}, state.was
  for _, name in ipairs(names) do
    local value = state[name]
    if value ~= was[name] then
      was[name] = value
      if value == nil then
        gone[#gone + 1] = name
      else
        set[#set + 1] = name
        set[#set + 1] = text_of(value)
      end
    end
  end
  if set[1] then
    redis.call('HSET', home, unpack(set)) -- first: a server out of memory refuses it, and nothing has been written then
    redis.call('EXPIRE', home, KEPT)
  end
  if gone[1] then
    redis.call('HDEL', home, unpack(gone))
  end
end

-- Write back what has changed; what is nil now is deleted.
local function remember(state)
  for home, names in pairs(state.homes) do
    remember_in(home, names, state)
  end
end
