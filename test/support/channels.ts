import { ChatWithMembers, Message } from '../../src/protocol/resources.ts'
import { ok, rest } from './check.ts'
import type { Account, TestServers } from './server.ts'

/** What people do with channels, over REST; `servers` is asked for late, since it starts before the first test. */
export function channels(servers: () => TestServers) {
  const { post, patch, remove } = rest(servers)
  return {
    /** Resolves with the new channel's id. */
    channel: async (owner: Account, body: object = {}): Promise<string> =>
      (await ok(post(owner, '/channels', { name: 'News', ...body }), ChatWithMembers, 201)).id,
    say: (as: Account, chat_id: string, content: string, at = 0) =>
      ok(post(as, '/messages', { chat_id, content }, at), Message, 201),
    read: (as: Account, id: string, seq?: number) => post(as, `/chats/${id}/read`, seq === undefined ? {} : { seq }),
    subscribe: (as: Account, id: string, at = 0) => post(as, `/channels/${id}/subscribe`, undefined, at),
    role: (as: Account, id: string, who: Account, role: string, at = 0) =>
      patch(as, `/chats/${id}/members/${who.id}`, { role }, at),
    unsubscribe: (as: Account, id: string, at = 0) => remove(as, `/channels/${id}/subscribe`, at),
  }
}
