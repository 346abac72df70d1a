import type { Account } from './people.ts'
import type { Stack } from './stack.ts'

/**
 * A database as it looks after a year: 2,000 chats, 1,000,000 messages, written by SQL as the server would have written
 * them: numbers without a gap, versions, members, clocks. The rows lie in the order of time, chats mixed, as they do when
 * they come one by one.
 */

export const totals = { chats: 2_000, messages: 1_000_000, mine: 200, members: 10 }
/** One of mine that has been talked in for a long time. */
export const longest = 100_000

export interface Filled {
  /** Ids of mine, the longest first, with where they stand. */
  mine: { id: string; version: number; last_seq: number }[]
  user_version: number
}

const words =
  'time year people way day man thing woman life child world school state family student group country problem hand part place case week company system program question work government number night point home water room mother area money story fact month lot right study book eye job word business issue side kind head house service friend father power hour game line end member law car city community name president team minute idea kid body information back parent face others level office door health person art war history party result change morning reason research girl guy moment air teacher force education'.split(
    ' ',
  )

/** Always the same, so that two runs search the same text. */
function sentences(count: number): string[] {
  let state = 42
  const next = (below: number) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
  return Array.from({ length: count }, () => Array.from({ length: 4 + next(22) }, () => words[next(words.length)]).join(' '))
}

/** `me` is among the people of 200 chats: 100 direct, 100 groups of 10. The others talk among themselves, in pairs. */
export async function fill(stack: Stack, me: Account, others: readonly Account[]): Promise<Filled> {
  const { chats, messages, mine, members } = totals
  const usual = Math.floor((messages - longest) / (chats - 1))
  await stack.query(
    'CREATE TEMP TABLE person AS SELECT id, (n - 1)::int AS n FROM unnest($1::uuid[]) WITH ORDINALITY AS t(id, n)',
    [others.map(({ id }) => id)],
  )
  await stack.query(
    'CREATE TEMP TABLE sentence AS SELECT content, (n - 1)::int AS n FROM unnest($1::text[]) WITH ORDINALITY AS t(content, n)',
    [sentences(20_000)],
  )
  // The first is a group, so that it has the most to show.
  await stack.query(
    `CREATE TEMP TABLE chat AS SELECT n, uuidv7() AS id, n < $1 AS is_mine, n < $1 AND n % 2 = 0 AS is_group,
       CASE WHEN n = 0 THEN $2::int ELSE $3::int END AS size FROM generate_series(0, $4::int - 1) AS n`,
    [mine, longest, usual, chats],
  )
  await stack.query(
    `CREATE TEMP TABLE membership AS
       SELECT c.n, c.id AS chat_id, $1::uuid AS user_id, 1 AS place FROM chat c WHERE is_mine
       UNION ALL
       SELECT c.n, c.id, p.id, 1 + k FROM chat c CROSS JOIN generate_series(1, $2::int - 1) AS k
         JOIN person p ON p.n = (c.n * 3 + k) % $3::int WHERE is_group
       UNION ALL
       SELECT c.n, c.id, p.id, 2 FROM chat c JOIN person p ON p.n = c.n WHERE is_mine AND NOT is_group
       UNION ALL
       SELECT c.n, c.id, p.id, 1 + k FROM chat c CROSS JOIN generate_series(0, 1) AS k
         JOIN person p ON p.n = (c.n + k * (1 + c.n / $3::int)) % $3::int WHERE NOT is_mine`,
    [me.id, members, others.length],
  )
  await stack.query('CREATE TEMP TABLE size AS SELECT chat_id, count(*)::int AS people FROM membership GROUP BY chat_id')
  await stack.query(`
    INSERT INTO chats (id, type, name, owner_id)
    SELECT c.id, CASE WHEN is_group THEN 'group' ELSE 'dm' END, CASE WHEN is_group THEN 'Group ' || n END,
      CASE WHEN is_group THEN (SELECT user_id FROM membership m WHERE m.chat_id = c.id AND place = 1) END FROM chat c`)
  await stack.query(`
    INSERT INTO chat_counters (chat_id, last_seq, version, member_count)
    SELECT c.id, c.size, s.people + c.size, s.people FROM chat c JOIN size s ON s.chat_id = c.id`)
  // Every fourth chat has unread messages.
  await stack.query(`
    INSERT INTO chat_members (chat_id, user_id, role, version, read_seq, delivered_seq)
    SELECT m.chat_id, m.user_id, CASE WHEN c.is_group AND place = 1 THEN 'owner' ELSE 'member' END, place,
      c.size - CASE WHEN c.n % 4 = 1 THEN 30 ELSE 0 END, c.size
    FROM membership m JOIN chat c ON c.id = m.chat_id`)
  await stack.query(`
    INSERT INTO user_chats (user_id, chat_id, version)
    SELECT user_id, chat_id, row_number() OVER (PARTITION BY user_id ORDER BY n) FROM membership`)
  await stack.query(`
    UPDATE user_clock u SET version = v.version
    FROM (SELECT user_id, max(version) AS version FROM user_chats GROUP BY user_id) v WHERE v.user_id = u.user_id`)
  await stack.query(`
    INSERT INTO dm_pairs (user_a, user_b, chat_id)
    SELECT min(user_id::text)::uuid, max(user_id::text)::uuid, m.chat_id FROM membership m JOIN chat c ON c.id = m.chat_id
    WHERE NOT c.is_group GROUP BY m.chat_id`)
  await stack.query(`
    INSERT INTO messages (chat_id, seq, version, id, sender_id, client_id, created_at, message_type, content)
    SELECT c.id, g.seq, s.people + g.seq, uuidv7(g.at - now()), m.user_id, gen_random_uuid(), g.at, 'text', t.content || ' ' || g.seq
    FROM chat c JOIN size s ON s.chat_id = c.id
    CROSS JOIN LATERAL (
      SELECT seq, now() - interval '365 days' * (1 - (seq - 0.5) / c.size) AS at FROM generate_series(1, c.size) AS seq
    ) g
    JOIN membership m ON m.chat_id = c.id AND m.place = 1 + g.seq % s.people
    JOIN sentence t ON t.n = (g.seq * 7919 + c.n * 104729) % 20000
    ORDER BY g.at`)
  await stack.query('VACUUM ANALYZE')
  await stack.query('CHECKPOINT')
  const rows = await stack.query<{ id: string; version: number; last_seq: number }>(
    'SELECT c.id, k.version::float8 AS version, k.last_seq::float8 AS last_seq FROM chat c JOIN chat_counters k ON k.chat_id = c.id WHERE is_mine ORDER BY n',
  )
  const [clock] = await stack.query<{ version: number }>('SELECT version::float8 AS version FROM user_clock WHERE user_id = $1', [
    me.id,
  ])
  return { mine: rows, user_version: clock!.version }
}
