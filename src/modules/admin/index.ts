export type { AdminDeps } from './deps.ts'
export { adminRoutes } from './routes.ts'
