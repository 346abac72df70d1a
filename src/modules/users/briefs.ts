import { LRUCache } from 'lru-cache'
import type { Control } from '../../platform/control.ts'
import type { Queryable } from '../../platform/db/db.ts'
import type { UserBrief } from '../../protocol/resources.ts'
import { selectBriefs } from './store.ts'

/** Profiles as they stand beside messages, kept for a minute; a change is heard of sooner. */
export interface BriefCache {
  load(db: Queryable, ids: readonly string[]): Promise<Map<string, UserBrief>>
}

export function createBriefCache(control: Control): BriefCache {
  const cache = new LRUCache<string, UserBrief>({ max: 20_000, ttl: 60_000 })
  // What changes while it is being read may have been read before the change: it is told, but not kept.
  const readings = new Set<Set<string>>()

  control.on(({ user_changed }) => {
    if (user_changed === undefined) return
    cache.delete(user_changed)
    for (const changed of readings) changed.add(user_changed)
  })

  return {
    async load(db, ids) {
      const found = new Map<string, UserBrief>()
      const missing: string[] = []
      for (const id of new Set(ids)) {
        const brief = cache.get(id)
        if (brief) found.set(id, brief)
        else missing.push(id)
      }
      if (missing.length === 0) return found
      const changed = new Set<string>()
      readings.add(changed)
      try {
        for (const brief of await selectBriefs(db, missing)) {
          found.set(brief.id, brief)
          if (!changed.has(brief.id)) cache.set(brief.id, brief)
        }
      } finally {
        readings.delete(changed)
      }
      return found
    },
  }
}
