export { createOnline, type Online } from './online.ts'
export { presenceRoutes } from './routes.ts'
export { createSignals, type Signals } from './signals.ts'
