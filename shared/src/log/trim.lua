-- Removes what is committed from a partition's log, if the log is still the one that was read.
--
-- KEYS  1 ep  2 log
-- ARGV  1 the epoch before the first entry was read  2 the first entry id that stays
-- Returns 1 when it was trimmed, 0 when the epoch has changed.

if redis.call('HGET', KEYS[1], 'e') ~= ARGV[1] then
  return 0
end
redis.call('XTRIM', KEYS[2], 'MINID', '=', ARGV[2])
return 1
