-- Library (uses quota, aside): what a shipped job takes of the caps on money: its estimate when it leaves, what it has cost when it is back.
--
-- One that is cancelled or purged meanwhile keeps its estimate taken: the API may have answered it.

-- As of a budget whose settings have caps, if there are any.
local CAPPED = {caps = redis.call('EXISTS', CAPS) == 1 or nil}

-- Whether a cap keeps a job ashore. lane: as in lib/heads.lua.
local function is_over_cap(lane, job, usd)
  return cap_reached(lane, setmetatable({usd = usd}, {__index = job}), CAPPED) ~= nil
end

local function take_fare(lane, job, usd)
  job.fare = charge(lane, setmetatable({usd = usd}, {__index = job}), CAPPED, NONE)
end

-- It has cost so many nanodollars.
local function settle_fare(job, usd)
  local estimate, quotas = string.match(job.fare, '^;([^;]*);(.*)$')
  if estimate then
    correct_quotas({quotas = quotas, taken = {usd = tonumber(estimate)}}, function()
      return usd
    end, let_in)
  end
  job.fare = ''
end
