export { type AdminCommand, type CommandDeps, commands } from './commands.ts'
export type { AdminDeps } from './deps.ts'
export { adminRoutes } from './routes.ts'
