-- Library (uses clock, state): how much of a budget each lane lately drew.
--
-- `drawn` is one text: µs of the first reservation, µs of the last one, and for each lane by rank the seconds of the budget
-- that it took, which fade with time.

-- Seconds after which a third of what was taken is left: of 15 jobs a second a tenth of them is known to 10 % then.
local LATELY = 60

-- A moment ago tells nothing of a rate; seconds.
local LEAST_AGE = 1

local function read_draws(state)
  local draws = {}
  for number in string.gmatch(state.drawn or '', '%S+') do
    draws[#draws + 1] = tonumber(number)
  end
  return draws
end

local function left_after(from)
  return math.exp(-math.max(0, NOW_US - from) / SECOND / LATELY)
end

-- A lane, by its rank, has taken so many seconds of the budget.
local function note_drawn(state, rank, seconds)
  local draws = read_draws(state)
  local left = left_after(draws[2] or NOW_US)
  local parts = {text_of(draws[1] or NOW_US), text_of(NOW_US)}
  for i = 1, math.max(rank, #draws - 2) do
    parts[#parts + 1] = string.format('%.6g', (draws[i + 2] or 0) * left + (i == rank and seconds or 0))
  end
  state.drawn = table.concat(parts, ' ')
end

-- The fraction of a budget that a lane lately drew.
local function drawn_by(state, rank)
  local draws = read_draws(state)
  if not draws[rank + 2] then
    return 0
  end
  local seen = LATELY * (1 - left_after(math.min(draws[1], NOW_US - LEAST_AGE * SECOND)))
  return draws[rank + 2] * left_after(draws[2]) / seen
end
