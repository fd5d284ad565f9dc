-- Takes up to ARGV[3] from an account that pays one back every ARGV[1] microseconds and holds ARGV[2] at most.
-- KEYS[1] is the time at which all is paid back. Answers {granted, microseconds until the next one when none was}.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local interval, burst, want = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local paid = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local last = now + interval * burst
-- A clock that was set back must not lock anybody out for longer than a burst takes.
paid = math.min(paid, last)
local granted = math.min(want, math.floor((last - paid) / interval))
if granted < 1 then
    return {0, paid + interval - last}
end
paid = paid + interval * granted
redis.call('SET', KEYS[1], string.format('%.0f', paid), 'PX', math.ceil((paid - now) / 1000))
return {granted, 0}
