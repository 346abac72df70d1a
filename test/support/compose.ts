import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parse } from 'yaml'
import { root } from './tools.ts'

export type Service = {
  image: string
  build?: { context: string; dockerfile: string }
  command?: string[]
  environment?: Record<string, string>
  ports?: string[]
  mem_limit: string
  networks: string[] | Record<string, { ipv4_address: string }>
  healthcheck: { test: string[] }
  restart: string
  logging: { options: Record<string, string> }
  volumes?: string[]
  stop_grace_period?: string
}
export type Compose = {
  services: Record<string, Service>
  networks: Record<string, { internal?: boolean; ipam?: { config: { subnet: string; ip_range?: string }[] } } | null>
}

/** `${A}`, `${A:-else}` and `${A:?why}`, also inside each other, as Compose reads them. Throws where a `?` variable is missing. */
export function interpolate(text: string, env: Record<string, string>): string {
  const inner = /\$\{(\w+)(?::([-?])([^{}]*))?\}/
  for (let match = inner.exec(text); match; match = inner.exec(text)) {
    const [all, name, kind, rest] = match
    const value = env[name!] || (kind === '-' ? rest! : '')
    if (!value && kind === '?') throw new Error(`${name}: ${rest}`)
    text = text.replace(all, () => value)
  }
  return text
}

export const composeText = readFileSync(join(root, 'docker-compose.yml'), 'utf8')

export function readCompose(env: Record<string, string>): Compose {
  return parse(interpolate(composeText, env))
}
