-- Opens a partition with an epoch, for one run of one server; never with an epoch that it has had already.
--
-- KEYS  1 ep
-- ARGV  1 epoch  2 run id of the server that the caller is attached to
-- Returns 1 when the partition was opened, 0 when nothing was changed.

local present = redis.call('HGET', KEYS[1], 'e')
if present and tonumber(present) >= tonumber(ARGV[1]) then
  return 0
end
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
redis.call('HSET', KEYS[1], 'e', ARGV[1], 'run', ARGV[2], 'at', string.format('%.0f', now))
return 1
