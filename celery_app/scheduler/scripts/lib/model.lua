-- Library: what the calls of a model lately cost, so that the next one's cost can be estimated.
--
-- Moving averages, of tokens and of characters apart: their quotient then weighs a prompt by its size, and the errors
-- of the estimates add up to nothing.

-- Weight of the newest call: the last 20 or so count.
local NEWEST = 0.1

-- Input tokens per character, and output tokens, until a call of the model has been settled. English has about 4
-- characters per token; a chat answer has a few hundred tokens.
local TOKENS_PER_CHARACTER, OUTPUT_TOKENS = 0.3, 500

-- Tokens that a prompt has at most, as far as the average believes: one per byte of its characters, and what a gateway
-- puts before it. One nonsense answer must not make every further call look dear.
local MOST_PER_CHARACTER, MOST_BESIDE = 4, 10000

local function averaged(before, value)
  return before and before + NEWEST * (value - before) or value
end

-- Tokens that a call costs at most: twice the largest context window (platform.claude.com, context windows). Whoever says
-- another number has counted wrong, and everybody would pay for it.
local MOST_TOKENS = 2000000

local function plausible(tokens)
  return math.min(math.max(0, tokens), MOST_TOKENS) -- in this order, which makes 0 of what is no number
end

-- cost: requests, input_tokens, characters, output_tokens (-1: as lately), max_tokens (-1: not bounded).
-- Returns a cost that has tokens only.
local function estimated(state, cost)
  local tokens, characters = state.tokens, state.characters
  local ratio = characters and tokens / characters or TOKENS_PER_CHARACTER
  local output = cost.output_tokens
  if output < 0 then
    output = state.output or OUTPUT_TOKENS
    output = cost.max_tokens >= 0 and math.min(output, cost.max_tokens) or output
  end
  local input = cost.input_tokens + cost.characters * ratio
  return {requests = cost.requests, input_tokens = plausible(input), output_tokens = plausible(output)}
end

-- characters: 0 for a call whose prompt was not text alone, which says nothing about text.
local function learn_model(state, characters, input_tokens, output_tokens)
  if characters > 0 then
    local believed = math.min(input_tokens, characters * MOST_PER_CHARACTER + MOST_BESIDE)
    state.tokens = averaged(state.tokens, believed)
    state.characters = averaged(state.characters, characters)
  end
  state.output = averaged(state.output, output_tokens)
end
