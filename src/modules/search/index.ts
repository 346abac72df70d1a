export type { SearchDeps } from './deps.ts'
export { createIndexer, type Indexer } from './indexer.ts'
export { searchRoutes } from './routes.ts'
export { changeWords } from './words.ts'
