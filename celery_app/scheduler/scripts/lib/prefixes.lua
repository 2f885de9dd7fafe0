-- Library (uses clock, jobs, wakeup): prompts that begin alike. Of a beginning that calls mark (`cache_control`) the API reads
-- what it has kept of a call before, once that has begun to be answered. So the first goes, the others wait for it, no longer
-- than such a first one usually takes, and then follow. Whatever becomes of the first, nobody waits for ever.
--
-- The string `prefix:<account>:<digest>` lives as long as what the API keeps: "<word> <till> <firsts> <by>".
--   word     warming: the first is on its way; warm: the API has it; cold: the first came to nothing, and the next one is first;
--            useless: the API has answered and keeps nothing, or no first gets through, so that nobody waits
--   till     µs: until when the others wait for one that is warming, and what else is known holds
--   firsts   how many there have been
--   by       id of the reservation of the first
--
-- A job's fact has up to four, the longest last, with commas between: "<digest> <ms that the API keeps it> <characters> <tokens>";
-- tokens: of images and documents.

-- Microseconds for which anybody waits, at most and at least, and how many times longer than a first one usually takes. By then
-- the API has read the prompt, whatever it still writes.
local MOST_WARMING, LEAST_WARMING, USUAL_FIRSTS = 10 * SECOND, SECOND / 4, 2

-- Firsts that come to nothing, after which the prompt is at fault, or the API: for so many µs nobody waits for another.
local MOST_FIRSTS, USELESS_KEPT = 3, 60 * SECOND

local known = {}

-- What is known of a prefix, or nil. budget: key of the job's budget; a key of the API is an account.
local function prefix_at(budget, text)
  local digest, life, characters, tokens = string.match(text, '^(%x+) (%d+) (%d+) (%d+)$')
  local account = digest and string.match(budget, 'budget:{([^:]*)')
  if not account then
    return nil
  end
  local name = key('prefix:' .. account .. ':' .. digest)
  if not known[name] then
    local word, till, firsts, by = string.match(redis.call('GET', name) or '', '^(%a+) (%d+) (%d+) (.*)$')
    if not word or word ~= 'warming' and tonumber(till) <= NOW_US then
      word, till, firsts, by = 'cold', 0, 0, ''
    end
    known[name] = {name = name, word = word, till = tonumber(till), firsts = tonumber(firsts), by = by,
      life = tonumber(life) * 1000, characters = tonumber(characters), tokens = tonumber(tokens)}
  end
  return known[name]
end

local NO_PREFIX = {}

-- All that a job has; text: its fact.
local function prefixes_at(budget, text)
  if text == '' then
    return NO_PREFIX
  end
  local found = {}
  for part in string.gmatch(text, '[^,]+') do
    found[#found + 1] = prefix_at(budget, part)
  end
  return found
end

-- till, life: µs.
local function write_prefix(prefix, word, till, life, by)
  if prefix.word == 'warming' then
    redis.call('DEL', key('passed')) -- who was passed may go
  end
  prefix.word, prefix.till, prefix.by = word, till, by or ''
  local text = string.format('%s %.0f %d %s', word, prefix.till, prefix.firsts, prefix.by)
  redis.call('SET', prefix.name, text, 'PX', string.format('%.0f', math.max(1, life / 1000)))
end

-- Microseconds for which a job waits for the first one with a prefix of its own.
local function wait_for_first(budget, job)
  local wait = 0
  for _, prefix in ipairs(budget and prefixes_at(budget.name, job.prefix) or NO_PREFIX) do
    wait = math.max(wait, prefix.word == 'warming' and prefix.till - NOW_US or 0)
  end
  return wait
end

-- A job's cost without what the API will read from its cache, which counts for no limit.
local function uncached(budget, job)
  local kept
  for _, prefix in ipairs(prefixes_at(budget.name, job.prefix)) do
    kept = prefix.word == 'warm' and prefix or kept
  end
  return not kept and job or {requests = job.requests, input_tokens = math.max(0, job.input_tokens - kept.tokens),
    characters = math.max(0, job.characters - kept.characters), output_tokens = job.output_tokens,
    max_tokens = job.max_tokens}
end

-- A job leaves; id: of its reservation. Returns whether it is the first with a prefix.
local function go_first(budget, job, id)
  local usual, first = USUAL_FIRSTS * (budget.state.first_us or MOST_WARMING), false
  for _, prefix in ipairs(prefixes_at(budget.name, job.prefix)) do
    if prefix.word == 'cold' then
      prefix.firsts, first = prefix.firsts + 1, true
      write_prefix(prefix, 'warming', NOW_US + math.min(MOST_WARMING, math.max(LEAST_WARMING, usual)), prefix.life, id)
    end
  end
  return first
end

-- A job is in nobody's hands any more. If it was the first and nobody has heard of an answer, the next one is.
local function step_down(id, job)
  for _, prefix in ipairs(job.budget ~= '' and prefixes_at(job.budget, job.prefix) or NO_PREFIX) do
    if prefix.word == 'warming' and prefix.by == job.claim .. '|' .. id then
      local vain = prefix.firsts >= MOST_FIRSTS
      local life = vain and USELESS_KEPT or prefix.life
      write_prefix(prefix, vain and 'useless' or 'cold', NOW_US + life, life)
      wake(job.lane)
    end
  end
end

-- A call has been answered, or has begun to be. ticket: its; text: its job's fact, nil for none; read, created: tokens of the
-- cache, -1 where nobody says. Returns whether others waited for that, and whether it was a first one.
local function hear_of_prefixes(budget, ticket, text, outcome, read, created)
  local heard, waited, first = outcome == 'begun' or outcome == 'answered', false, false
  for _, prefix in ipairs(text and heard and prefixes_at(budget.name, text) or NO_PREFIX) do
    local warming = prefix.word == 'warming'
    if warming or outcome == 'answered' then
      waited, first = waited or warming, first or warming and prefix.by == ticket.id
      local kept = outcome == 'begun' or math.max(tonumber(read), tonumber(created)) > 0
      local till = ticket.sent_at + prefix.life -- it is read as a call begins; from then on the API counts
      write_prefix(prefix, kept and 'warm' or 'useless', till, till - NOW_US)
    end
  end
  return waited, first
end
