import { z } from 'zod'
import { content, counter, emoji, uuid } from './primitives.ts'

/** Frames from the client. Every one may carry `id`, which its `ack` or `error` repeats. */

const command = <T extends string, S extends z.ZodRawShape>(type: T, description: string, shape: S) =>
  z.strictObject({ type: z.literal(type), id: z.string().min(1).max(100).optional(), ...shape }).meta({ description })

/** A chat's position as a client knows it, or a new one: what `POST /sync` takes, too. */
export const SyncRequest = z
  .strictObject({
    chats: z
      .record(uuid, counter)
      .refine((chats) => Object.keys(chats).length <= 5_000, 'must name at most 5000 chats')
      .default({})
      .describe('Chat id -> the version up to which the client has everything'),
    user_version: counter.default(0),
    limit: z.number().int().min(1).max(100).default(50).describe('The most messages per chat in this answer'),
    ticks: z
      .array(uuid)
      .max(200, 'must name at most 200 chats')
      .default([])
      .describe(
        'Chats whose cursors are to be told even if nothing else changed: those in which a message of mine is not read by all. As many as fit',
      ),
  })
  .meta({ id: 'SyncRequest' })

export const SendFields = {
  chat_id: uuid,
  content,
  reply_to_id: uuid.optional(),
  client_id: uuid.optional().describe('Made by the client: the same again is the same message, not another'),
  message_type: z.enum(['text']).optional(),
}

export const commands = {
  auth: command('auth', 'Signs the connection in, or renews its token before it expires.', {
    token: z.string().min(1).max(4_096),
  }),
  message: command('message', 'Sends a message; the ack has it, and comes after it is committed.', SendFields),
  edit: command('edit', 'Changes the text of a message of mine; the ack has the `message`.', { message_id: uuid, content }),
  delete: command('delete', 'Deletes a message for everybody: mine, or as owner or admin of the group.', { message_id: uuid }),
  react: command('react', 'Adds a reaction, or with `remove` takes it back; the ack has the `reactions`.', {
    message_id: uuid,
    emoji,
    remove: z.boolean().default(false),
  }),
  typing: command('typing', 'I am typing. Told on at most once in 3 s, ends by itself 5 s after the last.', {
    chat_id: uuid,
    is_typing: z.boolean().default(true),
  }),
  read: command('read', 'I have read up to `seq` (default: the last).', { chat_id: uuid, seq: counter.optional() }),
  delivered: command('delivered', 'I have received up to `seq` (default: the last).', { chat_id: uuid, seq: counter.optional() }),
  join_chat: command('join_chat', 'This chat is on the screen; the ack has `user_ids` of those who have it open.', {
    chat_id: uuid,
  }),
  leave_chat: command('leave_chat', 'This chat is no longer on the screen.', { chat_id: uuid }),
  sync: command('sync', 'As `POST /sync`; the answer is in the ack.', SyncRequest.shape),
  ping: command('ping', 'Answered by `pong`.', {}),
} as const

export type Commands = { [K in keyof typeof commands]: z.infer<(typeof commands)[K]> }
export type CommandType = keyof Commands
