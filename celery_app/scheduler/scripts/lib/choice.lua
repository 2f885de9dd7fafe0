-- Library (uses heads, waiters): the decision. A job may go when its lane, a slot and its budget have room for it.
--
-- A head that may not go shuts only its own model in its lane, and all behind it leave room for what it waits for: so a large
-- prompt is never starved by small ones, and one model never holds up another.

-- Walk over the heads in their order. visit(head, wait, short) is called with each: µs until the head may go, and what is
-- short; it returns true to end the walk there.
local function walk(lanes, waiters, visit)
  local ahead = {}
  for _, head in ipairs(in_order(lanes, waiters)) do
    head.verdict, head.budget = nil, head.cost and budget_of(head.lane.name, head.model)
    if not head.unknown and (head.budget or not head.cost) then -- nil: a call waits in its slot whose terms are gone
      local wait, short = wait_of(head, lanes, ahead)
      if visit(head, wait, short) then
        return head
      end
      if head.cost and (wait == 0 or head.budget.buckets[short] or short == 'calls') then
        leave_room(ahead, head)
      end
    end
  end
end
