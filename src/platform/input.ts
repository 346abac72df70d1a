import type { z } from 'zod'
import { AppError } from './errors.ts'

/** Turns what zod has against an input into the one form of an error: `details` with a path and a reason each. */

// An input may be wrong in a hundred thousand places; the answer need not be.
const maxDetails = 20
const maxNameLength = 100

const kinds: Record<string, string> = {
  string: 'must be a string',
  number: 'must be a number',
  int: 'must be a whole number',
  boolean: 'must be true or false',
  object: 'must be an object',
  record: 'must be an object',
  array: 'must be a list',
}

type Issue = z.core.$ZodRawIssue

function explain(issue: Issue): string | undefined {
  const { code, input } = issue
  if (code === 'invalid_type') return input === undefined ? 'is required' : kinds[issue.expected]
  if (code === 'invalid_value') return input === undefined ? 'is required' : `must be ${issue.values.map(String).join(' or ')}`
  if (code === 'too_small') return `must be at least ${issue.minimum}${unit(issue.origin, issue.minimum)}`
  if (code === 'too_big') return `must be at most ${issue.maximum}${unit(issue.origin, issue.maximum)}`
  if (code === 'invalid_union') return 'is none of the forms allowed here'
  return undefined
}

function unit(origin: string, count: number | bigint): string {
  const word = origin === 'string' ? 'character' : origin === 'array' || origin === 'set' ? 'item' : ''
  return word && ` ${word}${count === 1 ? '' : 's'}`
}

const nameOf = (path: readonly PropertyKey[], whole: string) =>
  path.length === 0 ? whole : path.map(String).join('.').slice(0, maxNameLength)

/** Of several reasons for one field the first is told. */
function detailsOf(issues: readonly z.core.$ZodIssue[], whole: string): Record<string, string> {
  const details = new Map<string, string>()
  const add = (path: readonly PropertyKey[], why: string) => {
    const name = nameOf(path, whole)
    if (details.size < maxDetails && !details.has(name)) details.set(name, why)
  }
  for (const issue of issues.slice(0, maxDetails)) {
    if (issue.code !== 'unrecognized_keys') add(issue.path, issue.message)
    else for (const key of issue.keys.slice(0, maxDetails)) add([...issue.path, key], 'is not known here')
  }
  // Entries, not assignments: a field may be called `__proto__`.
  return Object.fromEntries(details)
}

/**
 * `data` as `schema` understands it. Throws `invalid_input` with a reason for each field that is wrong; what is wrong with
 * the input as such is told under the name `whole`.
 */
export function parseInput<S extends z.ZodType>(schema: S, data: unknown, whole = 'body'): z.output<S> {
  const parsed = schema.safeParse(data, { error: explain })
  if (!parsed.success) throw new AppError('invalid_input', { details: detailsOf(parsed.error.issues, whole) })
  return parsed.data
}

/** One field is wrong, which only a look at more than its form could tell. */
export const invalid = (field: string, why: string): AppError => new AppError('invalid_input', { details: { [field]: why } })
