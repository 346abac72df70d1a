export { type BriefCache, createBriefCache } from './briefs.ts'
export type { CheckedCode, Tie, UserStamped, UsersDeps } from './deps.ts'
export { type ChangedMe, claimPhone, phoneHolder, releasePhone } from './phones.ts'
export { usersRoutes } from './routes.ts'
export { displayName } from './schema.ts'
export {
  briefs,
  checkReachable,
  createUser,
  deletedName,
  existingUsers,
  meOf,
  publicUsers,
  searchUsers,
  setAvatar,
  sweepDeleted,
  usersByName,
} from './service.ts'
export { lockClocks, tickClock } from './store.ts'
