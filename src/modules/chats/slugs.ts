import { type Queryable, sql } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'

/** Slugs name a chat in links. The look-up table decides whose one is; it and the chat's row change together. */

/**
 * Under the chat's lock. The new one is taken before the old one is given up: two chats that want each other's slug are
 * both refused, and wait for nobody. Rejects with `slug_taken`.
 */
export async function moveSlug(tx: Queryable, chatId: string, from: string | null, to: string | null): Promise<void> {
  if (to !== null) {
    const [mine] = await tx.query(
      sql`INSERT INTO chat_slugs (slug, chat_id) VALUES (${to}, ${chatId}) ON CONFLICT DO NOTHING RETURNING slug`,
    )
    if (!mine) throw new AppError('slug_taken')
  }
  if (from !== null) await tx.query(sql`DELETE FROM chat_slugs WHERE slug = ${from}`)
}

export async function chatBySlug(q: Queryable, slug: string): Promise<string | undefined> {
  const [row] = await q.query<{ chat_id: string }>(sql`SELECT chat_id FROM chat_slugs WHERE slug = ${slug}`)
  return row?.chat_id
}
