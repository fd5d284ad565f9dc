-- Gives a message its place and sends it on its way, in one step. The same rule as sequence.rs, in the same order:
-- fence, dedupe, seed and check, backlog, and only then writes. A script does not roll back, so whatever can fail
-- fails before the first write has happened.
--
-- KEYS  1 ep  2 m:CONV  3 d:MESSAGE  4 log  5 h:CONV  6 c:CONV (a channel)
-- ARGV  1 run id of the server that the caller is attached to  2 conversation  3 payload
--       4 "1" when the sender named the message  5 seed, or ""  6 "1" when the store was asked for the message, "?" when it is to be
--       7 entries the log may hold  8 messages the hot tail keeps  9 dedupe ms  10 hot tail ms
-- Returns "accepted SEQ PREV TIME EPOCH ENTRY", "duplicate …" (of the first time), or "epoch", "seed", "check", "full".

local ep = redis.call('HMGET', KEYS[1], 'e', 'run', 'at')
if not ep[1] or ep[2] ~= ARGV[1] then
  return 'epoch'
end
local epoch = tonumber(ep[1])
local named = ARGV[4] == '1'

if named then
  local first = redis.call('GET', KEYS[3])
  if first then
    -- Besides keeping it, this is a write: WAIT after a duplicate then says that the replicas have the first one.
    redis.call('PEXPIRE', KEYS[3], ARGV[9])
    return 'duplicate ' .. first
  end
end

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local m = redis.call('HMGET', KEYS[2], 'e', 's', 't')
local prev = tonumber(m[2] or '0')
if m[1] ~= ep[1] then
  if ARGV[5] == '' then
    return 'seed'
  end
  prev = math.max(prev, tonumber(ARGV[5]))
end
if prev + 1 >= (epoch + 1) * 4294967296 then
  -- Numbers of a later epoch are known, or those of this one are used up: only a later one can go on.
  redis.call('DEL', KEYS[1])
  return 'epoch'
end
local is_young = epoch > 0 and now < tonumber(ep[3]) + tonumber(ARGV[9])
if named and (ARGV[6] == '?' or ARGV[6] == '' and is_young) then
  return 'check'
end
if redis.call('XLEN', KEYS[4]) >= tonumber(ARGV[7]) then
  return 'full'
end

-- Numbers stay below 2^53, which a Lua number counts exactly; "%.0f" writes them without an exponent.
local seq = string.format('%.0f', math.max(prev, epoch * 4294967296) + 1)
prev = string.format('%.0f', prev)
local time = string.format('%.0f', math.max(now, tonumber(m[3] or '0')))

-- First the only write that could still fail, if the key held something else than a stream.
redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[8], seq .. '-0', 'p', prev, 't', time, 'r', ARGV[3])
redis.call('PEXPIRE', KEYS[5], ARGV[10])
local entry = redis.call('XADD', KEYS[4], '*',
  'c', ARGV[2], 's', seq, 'p', prev, 't', time, 'e', ep[1], 'r', ARGV[3])
redis.call('HSET', KEYS[2], 'e', ep[1], 's', seq, 't', time)
local place = table.concat({seq, prev, time, ep[1], entry}, ' ')
if named then
  redis.call('SET', KEYS[3], place, 'PX', ARGV[9])
end
redis.call('SPUBLISH', KEYS[6], table.concat({'M', seq, ' ', prev, ' ', time, '\n', ARGV[3]}))
return 'accepted ' .. place
