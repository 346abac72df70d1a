export { sweepAvatars } from './avatars.ts'
export type { Avatar, MediaDeps, Replaced } from './deps.ts'
export { mediaRoutes } from './routes.ts'
