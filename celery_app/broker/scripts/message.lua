-- Library: reads single header fields of a job in kombu's JSON without decoding it.
--
-- A prompt may be megabytes; kombu writes the body first and headers and properties last, so a field is matched in
-- the text's end. A quote inside a JSON string is escaped, hence `"name": ` cannot be forged by a value.

-- Bytes: headers with their argument descriptions (1 kB each at most) and properties fit.
local TAIL = 8192

-- Anchored: without the `^` a text that lacks the field is searched again from each of its bytes.
local function field(text, name, value)
  return string.match(string.sub(text, -TAIL), '^.*"' .. name .. '"%s*:%s*' .. value)
end

-- The delivery tag; nil for a text that is no kombu message. Foreign producers may order their fields as they like.
local function tag_of(text)
  local tag = field(text, 'delivery_tag', '"([^"\\]+)"')
  if tag then
    return tag
  end
  local decoded, message = pcall(cjson.decode, text)
  if not decoded or type(message) ~= 'table' or type(message.properties) ~= 'table' then
    return nil
  end
  tag = message.properties.delivery_tag
  return type(tag) == 'string' and tag or nil
end

-- Seconds since the epoch, from the properties; 0, the oldest, where a stock producer did not say.
local function submitted_at(text)
  return tonumber(field(text, 'submitted_at', '([%d%.]+)')) or 0
end

local function has_been_out(text)
  local info = string.match(string.sub(text, -TAIL), '^.*"delivery_info"%s*:%s*({[^}]*)')
  return info ~= nil and string.find(info, '"redelivered": true', 1, true) ~= nil
end

-- Write a field at the beginning of the job's delivery info, in place of an older one: kombu writes that behind
-- everything that a caller may have named alike, and behind headers of any length.
local function with_mark(text, name, value)
  local start = math.max(1, #text - TAIL + 1)
  local head, tail = string.sub(text, 1, start - 1), string.sub(text, start)
  local before, after = string.match(tail, '^(.*"delivery_info"%s*:%s*{)(.*)$')
  if not before then
    return text
  end
  local mark = '"' .. name .. '": '
  after = string.gsub(after, mark .. '%w+, ', '', 1)
  local comma = string.match(after, '^%s*}') and '' or ', '
  return head .. before .. mark .. value .. comma .. after
end

-- Mark a job as one that a worker held before; that also tells returned jobs from fresh ones.
local function mark_been_out(text)
  return has_been_out(text) and text or with_mark(text, 'redelivered', 'true')
end

-- The job as it goes back to its lane; `retries`: how often it has been tried, -1: as it says. The header of that name
-- may lie out of reach, so the worker is told here.
local function as_returned(text, retries)
  return retries < 0 and text or with_mark(text, 'lanes_retries', retries)
end

-- "batch\6\0226" -> "batch"
local function queue_of(list, separator)
  local at = string.find(list, separator, 1, true)
  return at and string.sub(list, 1, at - 1) or list
end

-- What kombu keeps in `unacked`: [message, exchange, routing key], here always by the default exchange.
local function wrap(text, queue)
  return '[' .. text .. ', "", ' .. cjson.encode(queue) .. ']'
end

local function unwrap(wrapped, queue)
  return string.sub(wrapped, 2, -(#cjson.encode(queue) + 8))
end

-- The model a job will call, by which it passes or waits at a gate; "task:<name>" where it does not say, or in a way
-- that JSON writes otherwise.
local function model_of(text)
  local model = field(text, 'lanes_model', '"([^"\\]+)"')
  return model or 'task:' .. (field(text, 'task', '"([^"\\]*)"') or '')
end

-- Seconds without a new job after which it is forgotten of which models a list's jobs are.
local MODELS_KEPT = 86400

local function models_key(prefix, list)
  return prefix .. 'lanes:models:' .. list
end

-- Note that a list has a job of a model: whether it is worth while to look behind a closed gate depends on it.
local function note_models(prefix, list, texts, first, last)
  local key, noted = models_key(prefix, list), {}
  for i = first, last do
    local model = model_of(texts[i])
    if not noted[model] then
      redis.call('SADD', key, model)
      noted[model] = true
    end
  end
  redis.call('EXPIRE', key, MODELS_KEPT)
end

-- Milliseconds since the epoch by the server's clock, the only one that all workers share.
local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
