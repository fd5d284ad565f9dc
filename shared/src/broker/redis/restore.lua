-- Puts a message that was accepted and then lost back at its place, before the partition is opened again. Members have
-- seen it already, or will find it by comparing positions, so it is not published.
--
-- KEYS  1 ep  2 m:CONV  3 d:MESSAGE  4 log  5 h:CONV
-- ARGV  1 run id of the server that the caller is attached to  2 conversation  3 payload
--       4 "1" when the sender named the message  5 seq  6 prev  7 time  8 the epoch that the partition is about to get
--       9 messages the hot tail keeps  10 dedupe ms  11 hot tail ms
-- Returns 1 when it was put back, 0 when it was not missing, -1 when the partition is open: then nothing is put back.

if redis.call('HGET', KEYS[1], 'run') == ARGV[1] then
  return -1
end
local last = redis.call('HGET', KEYS[2], 's')
if last and tonumber(last) >= tonumber(ARGV[5]) then
  return 0
end

redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[9], ARGV[5] .. '-0', 'p', ARGV[6], 't', ARGV[7], 'r', ARGV[3])
redis.call('PEXPIRE', KEYS[5], ARGV[11])
local entry = redis.call('XADD', KEYS[4], '*',
  'c', ARGV[2], 's', ARGV[5], 'p', ARGV[6], 't', ARGV[7], 'e', ARGV[8], 'r', ARGV[3])
-- An epoch that no partition has: the first publish asks the store for its seed, and goes on above what is here.
redis.call('HSET', KEYS[2], 'e', '', 's', ARGV[5], 't', ARGV[7])
if ARGV[4] == '1' then
  redis.call('SET', KEYS[3], table.concat({ARGV[5], ARGV[6], ARGV[7], ARGV[8], entry}, ' '), 'PX', ARGV[10])
end
return 1
