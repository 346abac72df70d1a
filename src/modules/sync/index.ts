export { syncRoutes } from './routes.ts'
export { type SyncDeps, sync } from './service.ts'
export { chatAdded, chatChanges, type StreamDeps, userChanges } from './streams.ts'
