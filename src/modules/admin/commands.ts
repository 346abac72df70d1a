import type { ParseArgsConfig } from 'node:util'
import { z } from 'zod'
import { parseDuration } from '../../platform/duration.ts'
import { invalid, parseInput } from '../../platform/input.ts'
import { newPassword, username } from '../../protocol/primitives.ts'
import { listInvites, makeInvite, revokeInvite } from '../auth/index.ts'
import { displayName } from '../users/index.ts'
import type { AdminDeps } from './deps.ts'
import { NewServerInvite } from './schema.ts'
import * as admin from './service.ts'
import { selectAccounts, selectStats } from './store.ts'
import { table } from './table.ts'
import { inviteUrl } from './urls.ts'

/** The operator's commands: `npm run admin -- …`. Each answers the lines to print, and rejects with an AppError. */

export interface CommandDeps extends AdminDeps {
  /** How people reach the server. */
  baseUrl: string
}

interface Given {
  args: string[]
  options: Record<string, string | boolean | undefined>
}

export interface AdminCommand {
  /** What follows the command's name. */
  usage: string
  what: string
  /** Names without `--`. */
  options?: NonNullable<ParseArgsConfig['options']>
  run(deps: CommandDeps, given: Given): Promise<string[]>
}

const wholeNumber = (name: string, text: unknown, fallback: number): number => {
  if (text === undefined) return fallback
  if (typeof text !== 'string' || !/^\d{1,9}$/.test(text)) throw invalid(name, 'must be a whole number')
  return Number(text)
}

const forLogin =
  (work: (deps: CommandDeps, userId: string, login: string) => Promise<string[]>) =>
  async (deps: CommandDeps, { args: [login = ''] }: Given): Promise<string[]> =>
    work(deps, await admin.accountOf(deps.db, login.trim()), login.trim())

const NewUser = z.strictObject({ username, password: newPassword, display_name: displayName.optional() })

export const commands: Readonly<Record<string, AdminCommand>> = {
  'user create': {
    usage: '<username> [--password …] [--display-name …] [--admin]',
    what: 'Makes an account, whatever REGISTRATION says. Without --password one is made and printed.',
    options: { password: { type: 'string' }, 'display-name': { type: 'string' }, admin: { type: 'boolean' } },
    async run(deps, { args: [name], options }) {
      const { password = admin.makePassword(), 'display-name': display_name } = options
      const input = parseInput(NewUser, { username: name, password, ...(display_name !== undefined && { display_name }) }, 'user')
      const me = await admin.addUser(deps, { ...input, is_admin: options.admin === true })
      return [
        `${input.username} can sign in now${me.is_admin ? ', and is an admin' : ''}.`,
        ...(options.password === undefined ? [`Password: ${input.password}`] : []),
      ]
    },
  },
  'user disable': {
    usage: '<login>',
    what: 'Signs an account out everywhere and keeps it out; nothing of it is lost.',
    run: forLogin(async (deps, id, login) => {
      await admin.setDisabled(deps, id, true)
      return [`${login} is disabled.`]
    }),
  },
  'user enable': {
    usage: '<login>',
    what: 'Lets it in again.',
    run: forLogin(async (deps, id, login) => {
      await admin.setDisabled(deps, id, false)
      return [`${login} is enabled.`]
    }),
  },
  'user reset-password': {
    usage: '<login>',
    what: 'Makes a new password, prints it, and ends all sessions.',
    run: forLogin(async (deps, id, login) => {
      const password = admin.makePassword()
      await admin.resetPassword(deps, id, password)
      return [`${login} is signed out everywhere.`, `Password: ${password}`]
    }),
  },
  'user make-admin': {
    usage: '<login>',
    what: 'Lets it use /admin: invitations, accounts, numbers.',
    run: forLogin(async (deps, id, login) => {
      await admin.setAdmin(deps, id, true)
      return [`${login} is an admin.`]
    }),
  },
  'user remove-admin': {
    usage: '<login>',
    what: 'Takes that back.',
    run: forLogin(async (deps, id, login) => {
      await admin.setAdmin(deps, id, false)
      return [`${login} is no admin.`]
    }),
  },
  'user list': {
    usage: '[--limit 50]',
    what: 'The newest accounts first.',
    options: { limit: { type: 'string' } },
    async run(deps, { options }) {
      const rows = await selectAccounts(deps.db, wholeNumber('limit', options.limit, 50))
      return table(
        ['username', 'name', 'phone', 'email', '', 'made', 'last seen', 'id'],
        rows.map((row) => [
          row.username ?? '',
          row.display_name,
          row.phone ?? '',
          row.email ?? '',
          [row.is_admin && 'admin', row.disabled_at && 'disabled'].filter(Boolean).join(', '),
          row.created_at.slice(0, 10),
          row.last_seen?.slice(0, 16).replace('T', ' ') ?? '',
          row.id,
        ]),
      )
    },
  },
  stats: {
    usage: '',
    what: 'How much there is.',
    async run(deps) {
      const stats = await selectStats(deps.db)
      return table(
        ['', ''],
        Object.entries(stats).map(([name, value]) => [name.replaceAll('_', ' '), String(value)]),
      ).slice(1)
    },
  },
  invite: {
    usage: '[--uses 1] [--expires 7d]',
    what: 'Makes an invitation for REGISTRATION=invite, and prints its link.',
    options: { uses: { type: 'string' }, expires: { type: 'string' } },
    async run(deps, { options }) {
      const ms = typeof options.expires === 'string' ? parseDuration(options.expires) : undefined
      if (options.expires !== undefined && ms === undefined) throw invalid('expires', 'must be a time such as 12h or 7d')
      const input = parseInput(NewServerInvite, {
        ...(options.uses !== undefined && { max_uses: wholeNumber('uses', options.uses, 1) }),
        ...(ms !== undefined && { expires_in: Math.floor(ms / 1_000) }),
      })
      const invite = await makeInvite(deps.db, null, input)
      return [
        inviteUrl(deps.baseUrl, invite.code),
        `Code: ${invite.code}`,
        `Good for ${invite.max_uses === 1 ? 'one account' : `${invite.max_uses} accounts`} until ${invite.expires_at}.`,
      ]
    },
  },
  invites: {
    usage: '[--limit 50]',
    what: 'The newest invitations first.',
    options: { limit: { type: 'string' } },
    async run(deps, { options }) {
      const { invites } = await listInvites(deps.db, { limit: wholeNumber('limit', options.limit, 50) })
      const now = new Date().toISOString()
      const state = (invite: (typeof invites)[number]) =>
        invite.revoked_at ? 'taken back' : invite.expires_at <= now ? 'expired' : invite.uses >= invite.max_uses ? 'used up' : ''
      return table(
        ['code', 'uses', 'until', ''],
        invites.map((invite) => [invite.code, `${invite.uses}/${invite.max_uses}`, invite.expires_at, state(invite)]),
      )
    },
  },
  'invite revoke': {
    usage: '<code>',
    what: 'Takes an invitation back.',
    async run(deps, { args: [code = ''] }) {
      await revokeInvite(deps.db, code)
      return ['Taken back.']
    },
  },
}
