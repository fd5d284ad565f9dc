-- Who is in one conversation. Whatever is asked, what has expired goes first, so that counting is cheap: the number of
-- connections is that of the zset, the number of users the length of the third hash.
--
-- KEYS  1 zset client → expiry  2 hash client → "USER\nJSON"  3 hash user → how many connections
-- ARGV  1 what is asked:
--       "enter"  2 ttl ms, then by threes: client, user, JSON  → connections
--       "leave"  2 client                                      → connections
--       "list"   2 at most so many                             → the JSON of each
--       "stats"                                                → connections, users

local PURGED_MAX = 1000

local function forget(client)
  if redis.call('ZREM', KEYS[1], client) == 0 then
    return
  end
  local who = redis.call('HGET', KEYS[2], client)
  redis.call('HDEL', KEYS[2], client)
  local user = who and string.match(who, '^[^\n]+')
  if user and redis.call('HINCRBY', KEYS[3], user, -1) <= 0 then
    redis.call('HDEL', KEYS[3], user)
  end
end

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local alive = string.format('(%.0f', now)
local expired = redis.call('ZRANGE', KEYS[1], '-inf', string.format('%.0f', now), 'BYSCORE',
    'LIMIT', 0, PURGED_MAX)
for _, client in ipairs(expired) do
  forget(client)
end

local asked = ARGV[1]
if asked == 'enter' then
  local expiry = string.format('%.0f', now + tonumber(ARGV[2]))
  for i = 3, #ARGV, 3 do
    local client, user = ARGV[i], ARGV[i + 1]
    if redis.call('ZADD', KEYS[1], expiry, client) == 1 then
      redis.call('HINCRBY', KEYS[3], user, 1)
    end
    redis.call('HSET', KEYS[2], client, user .. '\n' .. ARGV[i + 2])
  end
  for _, key in ipairs(KEYS) do
    redis.call('PEXPIRE', key, ARGV[2])
  end
elseif asked == 'leave' then
  forget(ARGV[2])
elseif asked == 'list' then
  local found = {}
  for _, client in ipairs(redis.call('ZRANGE', KEYS[1], alive, '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[2])) do
    local who = redis.call('HGET', KEYS[2], client)
    if who then
      found[#found + 1] = string.match(who, '\n(.*)$')
    end
  end
  return found
end

-- Where all that has expired is gone, whoever remains is there.
local clients = #expired < PURGED_MAX and redis.call('ZCARD', KEYS[1])
    or redis.call('ZCOUNT', KEYS[1], alive, '+inf')
if asked == 'stats' then
  return {clients, redis.call('HLEN', KEYS[3])}
end
return clients
