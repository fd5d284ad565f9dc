-- Who is connected, and which users of one partition are known to be online.
--
-- KEYS  1 zset of the user: client → expiry   2 hash of the user: client → record
--       3 zset of the partition: user → when the user may be taken
--       4 hash of the partition: user → when last seen; with a minus in front once somebody has taken the user
-- ARGV  1 what is asked:
--       "enter"    2 ttl ms  3 user, then by twos: client, record → 1 when the user was not known
--       "leave"    2 how long to wait for a return, ms  3 user  4 client
--       "list"     2 at most so many                              → records
--       "state"    2 user                                         → connections, last seen as it stands
--       "take"     2 at most so many  3 how early, ms  4 for how long, ms → by twos: user, last seen
--       "confirm"  then users                                     → those who have come back
-- "take" and "confirm" are about the partition alone; their keys 1 and 2 are not there.

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local function text(number)
  return string.format('%.0f', number)
end
local alive = '(' .. text(now)
local asked = ARGV[1]

if asked == 'take' then
  local online, seen, found = KEYS[1], KEYS[2], {}
  for _, user in ipairs(redis.call('ZRANGE', online, '-inf', text(now + tonumber(ARGV[3])), 'BYSCORE',
      'LIMIT', 0, ARGV[2])) do
    local last = string.gsub(redis.call('HGET', seen, user) or text(now), '^%-', '')
    redis.call('HSET', seen, user, '-' .. last)
    redis.call('ZADD', online, text(now + tonumber(ARGV[4])), user)
    found[#found + 1] = user
    found[#found + 1] = last
  end
  return found
elseif asked == 'confirm' then
  local online, seen, back = KEYS[1], KEYS[2], {}
  for i = 2, #ARGV do
    local last = redis.call('HGET', seen, ARGV[i])
    if last and string.sub(last, 1, 1) == '-' then
      redis.call('HDEL', seen, ARGV[i])
      redis.call('ZREM', online, ARGV[i])
    elseif last then
      back[#back + 1] = ARGV[i]
    end
  end
  return back
end

if asked == 'list' then
  local clients = redis.call('ZRANGE', KEYS[1], alive, '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[2])
  if #clients == 0 then
    return {}
  end
  return redis.call('HMGET', KEYS[2], unpack(clients))
elseif asked == 'state' then
  return {redis.call('ZCOUNT', KEYS[1], alive, '+inf'), redis.call('HGET', KEYS[4], ARGV[2]) or ''}
end

local user = ARGV[3]
for _, client in ipairs(redis.call('ZRANGE', KEYS[1], '-inf', text(now), 'BYSCORE', 'LIMIT', 0, 1000)) do
  redis.call('ZREM', KEYS[1], client)
  redis.call('HDEL', KEYS[2], client)
end
if asked == 'enter' then
  local due = text(now + tonumber(ARGV[2]))
  for i = 4, #ARGV, 2 do
    redis.call('ZADD', KEYS[1], due, ARGV[i])
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  end
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
  local last = redis.call('HGET', KEYS[4], user)
  redis.call('HSET', KEYS[4], user, text(now))
  redis.call('ZADD', KEYS[3], due, user)
  return (not last or string.sub(last, 1, 1) == '-') and 1 or 0
end

redis.call('ZREM', KEYS[1], ARGV[4])
redis.call('HDEL', KEYS[2], ARGV[4])
if redis.call('ZCOUNT', KEYS[1], alive, '+inf') == 0 then
  local last = redis.call('HGET', KEYS[4], user)
  -- Without anything known, the data were lost, and the others were told that the user is online.
  if not last or string.sub(last, 1, 1) ~= '-' then
    redis.call('HSET', KEYS[4], user, text(now))
    redis.call('ZADD', KEYS[3], text(now + tonumber(ARGV[2])), user)
  end
end
return 0
