import { readFileSync } from 'node:fs'
import Fastify from 'fastify'

/**
 * What Fastify on Node can do at all here: the same requests answered with the same bytes, made before. No sign-in, no
 * schema, no database. The argument is a file with what to answer.
 */

export interface Answer {
  method: 'GET' | 'POST'
  /** Fastify's pattern. */
  path: string
  status: number
  body: string
}

const answers = JSON.parse(readFileSync(process.argv[2]!, 'utf8')) as Answer[]
const app = Fastify()
for (const { method, path, status, body } of answers)
  app.route({
    method,
    url: path,
    handler: (_request, reply) => {
      reply.code(status).type('application/json; charset=utf-8').send(body)
    },
  })
console.log(`is ready on ${await app.listen({ host: '127.0.0.1', port: 0 })}`)
process.on('SIGTERM', () => process.exit())
