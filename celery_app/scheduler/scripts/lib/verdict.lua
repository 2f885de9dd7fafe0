-- Library (uses jobs): whether a job ends by itself or was cancelled; whoever comes first.

local function may_end(id, batch, kept)
  local ended = key('ended:' .. id)
  -- A job that ended once and was delivered again ends as it did.
  if is_marked(id, batch) and redis.call('EXISTS', ended) == 0 then
    return false
  end
  redis.call('SET', ended, 1, 'EX', kept)
  return true
end
