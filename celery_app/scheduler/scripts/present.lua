-- Present: a worker gives a sign of life for the lanes that it serves. Dead letters that are too old go, whether others come or
-- not, and jobs that have lost their place, or need not stand aside any more, have one again.
--
-- KEYS: none.
-- ARGV[1] string: prefix of all keys
-- ARGV[2] string: name of the worker's process, unique
-- ARGV[3…] strings: the lanes' names
--
-- Returns nothing.

for i = 3, #ARGV do
  give_sign(ARGV[i], ARGV[2])
  return_some(ARGV[i])
end
trim_dead()
mend_some()
