/** The document that the server gives of itself, as tests walk through it. */

export interface Schema {
  $ref?: string
  type?: string
  format?: string
  enum?: unknown[]
  oneOf?: Schema[]
  anyOf?: Schema[]
  properties?: Record<string, Schema>
  required?: string[]
  items?: Schema
  minimum?: number
  maximum?: number
  minLength?: number
  maxLength?: number
  minItems?: number
  maxItems?: number
  examples?: unknown[]
}

export interface Parameter {
  name: string
  in: 'path' | 'query'
  required?: boolean
  schema: Schema
}

interface Described {
  tags: string[]
  summary: string
  parameters?: Parameter[]
  requestBody?: { required?: boolean; content: { 'application/json'?: { schema: Schema }; 'multipart/form-data'?: object } }
  responses: Record<string, { content?: { 'application/json': { schema: Schema } } }>
  security?: unknown[]
}

export interface Document {
  openapi: string
  paths: Record<string, Record<string, Described>>
  components: { schemas: Record<string, Schema> }
}

export interface Operation {
  /** `POST /chats/{id}/read` */
  name: string
  method: string
  path: string
  tags: string[]
  parameters: Parameter[]
  /** As JSON; a form has none. */
  body: Schema | undefined
  statuses: number[]
  isPublic: boolean
}

export async function loadDocument(url: string): Promise<Document> {
  return (await (await fetch(`${url}/api/v1/openapi.json`)).json()) as Document
}

/** Every operation under `/api/v1`, with its path from there. */
export function operationsOf(document: Document): Operation[] {
  return Object.entries(document.paths)
    .filter(([path]) => path.startsWith('/api/v1/'))
    .flatMap(([full, methods]) =>
      Object.entries(methods).map(([verb, described]) => {
        const path = full.slice('/api/v1'.length)
        const method = verb.toUpperCase()
        return {
          name: `${method} ${path}`,
          method,
          path,
          tags: described.tags,
          parameters: described.parameters ?? [],
          body: described.requestBody?.content['application/json']?.schema,
          statuses: Object.keys(described.responses).map(Number),
          isPublic: described.security?.length === 0,
        }
      }),
    )
}

export function resolve(document: Document, schema: Schema): Schema {
  return schema.$ref === undefined ? schema : document.components.schemas[schema.$ref.split('/').at(-1)!]!
}

/** The forms of a body: each alternative by itself. */
export function formsOf(document: Document, schema: Schema): Schema[] {
  const found = resolve(document, schema)
  return (found.oneOf ?? found.anyOf)?.map((form) => resolve(document, form)) ?? [found]
}

/** A value that fits; ids come from `known` by the field's name. Only required fields, unless `all`. */
export function sample(document: Document, given: Schema, name: string, known: Record<string, string>, all = false): unknown {
  const schema = resolve(document, given)
  const first = schema.oneOf?.[0] ?? schema.anyOf?.[0]
  if (first) return sample(document, first, name, known, all)
  if (schema.enum) return schema.enum[0]
  if (schema.examples) return schema.examples[0]
  if (schema.format === 'uuid') return known[name] ?? known.id
  if (schema.format === 'date-time') return '2030-01-15T10:05:00.000Z'
  if (schema.format === 'email') return 'somebody@example.org'
  if (schema.type === 'boolean') return true
  if (schema.type === 'integer' || schema.type === 'number') return Math.max(1, schema.minimum ?? 1)
  if (schema.type === 'array') return [sample(document, schema.items ?? {}, name.replace(/s$/, ''), known, all)]
  if (schema.type === 'object') {
    const fields = Object.entries(schema.properties ?? {}).filter(([field]) => all || schema.required?.includes(field))
    return Object.fromEntries(fields.map(([field, inner]) => [field, sample(document, inner, field, known, all)]))
  }
  return 'Abcdefg1'.slice(0, schema.maxLength ?? 8)
}
