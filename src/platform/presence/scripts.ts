import type { Redis } from 'ioredis'

/**
 * What presence keeps in Redis, and the scripts that touch it. All times are Redis's own: the clocks of the machines
 * do not matter.
 *
 * `instances`: sorted set, instance -> end of its lease in ms. `i:<instance>`: hash, user -> 1, and the field '' that
 * says that the hash is complete. `open:<chat>`: hash, `<instance>:<user>` -> 1. `polled`: when any instance polled
 * last. `quiet`: is there while no ended lease counts. All of them have one hash tag, so that in a cluster they lie in one
 * slot and a script may touch them together.
 */
export function presenceKeys(prefix: string) {
  const tag = presenceTag(prefix)
  return {
    instances: `${tag}:instances`,
    polled: `${tag}:polled`,
    quiet: `${tag}:quiet`,
    /** Followed by an instance's id. */
    users: `${tag}:i:`,
    open: (chatId: string) => `${tag}:open:${chatId}`,
  }
}

export const presenceTag = (prefix: string) => `{${prefix}presence}`

const now = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)`

/** KEYS instances; ARGV instance, lease in ms. */
export const renewLease = `${now}
return redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])`

/**
 * KEYS instances, polled, quiet; ARGV instance, lease in ms, prefix of user hashes, their time to live in ms.
 * Renews the lease; answers whether the own hash is complete, whether it is quiet, the live instances, and the users
 * of the ended leases that were claimed. A script is atomic, so that each ended lease is claimed once.
 *
 * When nobody has polled for a second it was Redis (or the way to it) that stood still: then every lease has ended,
 * and everybody is about to renew it. For two seconds nobody is given up.
 */
const poll = `${now}
local polled = redis.call('GET', KEYS[2])
redis.call('SET', KEYS[2], now, 'PX', 60000)
if not polled or now - polled > 1000 then redis.call('SET', KEYS[3], 1, 'PX', 2000) end
local quiet = redis.call('EXISTS', KEYS[3])
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', ARGV[3] .. ARGV[1], ARGV[4])
local users = {}
if quiet == 0 then
  for _, ended in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 10)) do
    redis.call('ZREM', KEYS[1], ended)
    for _, user in ipairs(redis.call('HKEYS', ARGV[3] .. ended)) do
      if user ~= '' then users[#users + 1] = user end
    end
    redis.call('DEL', ARGV[3] .. ended)
  end
end
return {
  redis.call('HEXISTS', ARGV[3] .. ARGV[1], ''),
  quiet,
  redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf'),
  users,
}`

/** KEYS instances; ARGV prefix of user hashes, users (at most 1,000). Answers those that a live instance has. */
const online = `${now}
local found = {}
for _, instance in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')) do
  local has = redis.call('HMGET', ARGV[1] .. instance, unpack(ARGV, 2))
  for i = 1, #has do
    if has[i] then found[i] = true end
  end
end
local users = {}
for i in pairs(found) do users[#users + 1] = ARGV[i + 1] end
return users`

/**
 * KEYS instances, open chat; ARGV prefix of user hashes, how many users are enough. Forgets what instances left
 * that are gone for good: one whose lease merely ended still has its hash, and may come back to it.
 */
const openUsers = `${now}
local live = {}
for _, instance in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')) do live[instance] = true end
local gone, seen, users, left = {}, {}, {}, {}
local cursor = '0'
repeat
  local page = redis.call('HSCAN', KEYS[2], cursor, 'COUNT', 1000)
  cursor = page[1]
  for i = 1, #page[2], 2 do
    local field = page[2][i]
    local at = string.find(field, ':', 1, true)
    local instance, user = string.sub(field, 1, at - 1), string.sub(field, at + 1)
    if live[instance] then
      if not seen[user] then
        seen[user] = true
        users[#users + 1] = user
      end
    else
      if gone[instance] == nil then gone[instance] = redis.call('EXISTS', ARGV[1] .. instance) == 0 end
      if gone[instance] then left[#left + 1] = field end
    end
  end
until cursor == '0' or #users >= tonumber(ARGV[2])
for _, field in ipairs(left) do redis.call('HDEL', KEYS[2], field) end
return users`

/** KEYS instances; ARGV instance, prefix of user hashes. */
const release = `
redis.call('ZREM', KEYS[1], ARGV[1])
return redis.call('DEL', ARGV[2] .. ARGV[1])`

type Arg = string | number

export interface PresenceScripts {
  presencePoll(...args: Arg[]): Promise<[complete: number, quiet: number, live: string[], users: string[]]>
  presenceOnline(...args: Arg[]): Promise<string[]>
  presenceOpenUsers(...args: Arg[]): Promise<string[]>
  presenceRelease(...args: Arg[]): Promise<number>
}

export function definePresenceScripts(client: Redis): Redis & PresenceScripts {
  client.defineCommand('presencePoll', { numberOfKeys: 3, lua: poll })
  client.defineCommand('presenceOnline', { numberOfKeys: 1, lua: online })
  client.defineCommand('presenceOpenUsers', { numberOfKeys: 2, lua: openUsers })
  client.defineCommand('presenceRelease', { numberOfKeys: 1, lua: release })
  return client as Redis & PresenceScripts
}
