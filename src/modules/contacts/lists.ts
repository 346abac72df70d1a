import type { ContactRequest, UserPublic } from '../../protocol/resources.ts'
import type { ContactDeps } from './deps.ts'
import type { ContactCursor } from './schema.ts'
import { type ContactKey, selectBlocked, selectContacts, selectRequests } from './store.ts'
import { requestResource } from './views.ts'

/** Lists of people, page by page. */

const collator = new Intl.Collator('und')

interface Page<T> {
  page: T[]
  has_more: boolean
  next_cursor: string | null
}

/** `rows` are one more than a page where there is more. */
function paged<T>(rows: readonly T[], limit: number, cursorOf: (row: T) => string): Page<T> {
  const page = rows.slice(0, limit)
  const has_more = rows.length > limit
  return { page, has_more, next_cursor: has_more ? cursorOf(page.at(-1)!) : null }
}

const placeOf = (key: ContactKey, online: ReadonlySet<string>): ContactCursor => [online.has(key.id), key.display_name, key.id]

const compare = (a: ContactCursor, b: ContactCursor): number =>
  Number(b[0]) - Number(a[0]) || collator.compare(a[1], b[1]) || (a[2] < b[2] ? -1 : a[2] > b[2] ? 1 : 0)

/**
 * Online first, then by name. All keys are read for a page: who is online only the presence store knows. Whoever comes or
 * goes between two pages may be on both or on neither; `online_status` tells of them.
 */
export async function listContacts(
  deps: ContactDeps,
  userId: string,
  { limit, cursor }: { limit: number; cursor?: ContactCursor | undefined },
) {
  const keys = await selectContacts(deps.db, userId)
  const online = await deps.online(keys.filter((key) => key.shows).map((key) => key.id))
  const after = keys
    .map((key) => placeOf(key, online))
    .filter((place) => cursor === undefined || compare(place, cursor) > 0)
    .sort(compare)
  const { page, ...more } = paged(after, limit, encodeCursor)
  return {
    contacts: await profiles(
      deps,
      userId,
      page.map(([, , id]) => id),
    ),
    ...more,
  }
}

export const encodeCursor = (cursor: ContactCursor): string => Buffer.from(JSON.stringify(cursor)).toString('base64url')

/** In the order of `ids`. */
async function profiles(deps: ContactDeps, viewerId: string, ids: readonly string[]): Promise<UserPublic[]> {
  const people = await deps.publicUsers(viewerId, ids)
  return ids.map((id) => people.get(id)).filter((user) => user !== undefined)
}

/** The newest first. */
export async function listRequests(
  deps: ContactDeps,
  userId: string,
  { direction, limit, cursor }: { direction: ContactRequest['direction']; limit: number; cursor?: string | undefined },
) {
  const state = direction === 'incoming' ? 'incoming' : 'requested'
  const rows = await selectRequests(deps.db, userId, state, cursor, limit + 1)
  const { page, ...more } = paged(rows, limit, (row) => row.request_id!)
  const people = await deps.publicUsers(
    userId,
    page.map((row) => row.other_id),
  )
  return { requests: page.map((row) => requestResource(row, people.get(row.other_id)!)), ...more }
}

/** Whom I block, in the order of their ids. */
export async function listBlocks(
  deps: ContactDeps,
  userId: string,
  { limit, cursor }: { limit: number; cursor?: string | undefined },
) {
  const rows = await selectBlocked(deps.db, userId, cursor, limit + 1)
  const { page, ...more } = paged(rows, limit, (row) => row.other_id)
  return {
    blocks: await profiles(
      deps,
      userId,
      page.map((row) => row.other_id),
    ),
    ...more,
  }
}
