export { createOnline, type Online } from './online.ts'
export { createSignals, type Signals } from './signals.ts'
