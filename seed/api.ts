import { setTimeout as sleep } from 'node:timers/promises'

/** The public interface as a patient caller uses it: it waits when told to, and renews its tokens. */

export interface Person {
  id: string
  username: string
  display_name: string
  token: string
  refresh_token: string
  /** Under way, so that many calls at once renew once. */
  renewing?: Promise<void> | undefined
}

export class ApiError extends Error {
  readonly code: string
  constructor(what: string, status: number, code: string, sentence: string) {
    super(`${what}: ${status} ${code}. ${sentence}`)
    this.code = code
  }
}

export interface Api {
  /** A body is JSON, or a form. */
  call<T = Record<string, unknown>>(method: string, path: string, options?: { as?: Person; body?: unknown }): Promise<T>
  /** What this server offers: `POST /channels` and the like. */
  offers(): Promise<Set<string>>
}

/** A server that is away or busy is asked again so often, each time after a longer while. */
const tries = 6

/** `onWait` hears of each wait that a limit asks for: seconds, and for what. */
export function createApi(url: string, onWait: (seconds: number, what: string) => void): Api {
  async function once<T>(method: string, path: string, token: string | undefined, body: unknown): Promise<T> {
    const what = `${method} ${path}`
    for (let attempt = 1; ; attempt += 1) {
      const response = await fetch(`${url}/api/v1${path}`, {
        method,
        headers: {
          ...(token !== undefined && { authorization: `Bearer ${token}` }),
          ...(body !== undefined && !(body instanceof FormData) && { 'content-type': 'application/json' }),
        },
        ...(body !== undefined && { body: body instanceof FormData ? body : JSON.stringify(body) }),
      }).catch((error: Error) => error)
      if (response instanceof Error) {
        if (attempt === tries)
          throw new Error(`${url} does not answer: ${(response.cause as Error)?.message ?? response.message}`)
        await sleep(200 * 2 ** attempt)
        continue
      }
      const text = await response.text()
      if (response.ok) return JSON.parse(text) as T
      if (response.status === 429) {
        const seconds = Number(response.headers.get('retry-after') ?? 1)
        onWait(seconds, what)
        // A little later, so that all who wait for the same moment do not come in one.
        await sleep(seconds * 1_000 + Math.random() * 250)
        attempt = 0
        continue
      }
      if (response.status === 503 && attempt < tries) {
        await sleep(200 * 2 ** attempt)
        continue
      }
      let answer: { code?: string; error?: string }
      try {
        answer = JSON.parse(text)
      } catch {
        throw new Error(`${what}: ${response.status}, and no JSON: is ${url} a Parley server?`)
      }
      throw new ApiError(what, response.status, answer.code ?? '', answer.error ?? '')
    }
  }

  async function renew(person: Person): Promise<void> {
    const { refresh_token } = person
    const tokens = await once<{ token: string; refresh_token: string }>('POST', '/auth/refresh', undefined, { refresh_token })
    person.token = tokens.token
    person.refresh_token = tokens.refresh_token
  }

  return {
    async call<T>(method: string, path: string, { as, body }: { as?: Person; body?: unknown } = {}): Promise<T> {
      try {
        return await once<T>(method, path, as?.token, body)
      } catch (error) {
        if (!as || !(error instanceof ApiError) || error.code !== 'token_expired') throw error
        as.renewing ??= renew(as).finally(() => {
          as.renewing = undefined
        })
        await as.renewing
        return once<T>(method, path, as.token, body)
      }
    },
    async offers() {
      const { paths } = await once<{ paths: Record<string, object> }>('GET', '/openapi.json', undefined, undefined)
      return new Set(
        Object.entries(paths).flatMap(([path, methods]) =>
          Object.keys(methods).map((method) => `${method.toUpperCase()} ${path.replace('/api/v1', '')}`),
        ),
      )
    },
  }
}

/** Works through `items`, `width` at a time. */
export async function each<T>(items: readonly T[], width: number, work: (item: T, n: number) => Promise<void>): Promise<void> {
  let at = 0
  const worker = async () => {
    while (at < items.length) {
      const n = at
      at += 1
      await work(items[n]!, n)
    }
  }
  await Promise.all(Array.from({ length: Math.min(width, items.length) }, worker))
}
