import { type Document, formsOf, type Operation, resolve, type Schema, sample } from './openapi.ts'

/** Requests that are wrong in one place each, made from the document: nothing here is written for a route. */

export interface Bad {
  what: string
  /** Path with the values filled in, and the query. */
  path: string
  /** As it goes over the wire. */
  body?: string | Uint8Array
}

// JSON cannot say these; they are put in place of a string that says their name.
const raw: Record<string, string> = {
  '@infinite@': '1e400',
  '@minus infinite@': '-1e400',
  '@past 2^53@': '9007199254740993',
  '@half@': '1.5',
}
const encode = (value: unknown): string => JSON.stringify(value).replace(/"(@[^"@]+@)"/g, (all, name: string) => raw[name] ?? all)

const nonsense: Record<string, unknown[]> = {
  string: [1, true, null, [], {}, ['x']],
  integer: ['1', 'x', true, null, [], {}, -1, '@half@', '@infinite@', '@minus infinite@', '@past 2^53@'],
  number: ['1', true, null, [], {}],
  boolean: ['true', 1, null, [], {}],
  array: ['x', 1, null, {}, true],
  object: ['x', 1, null, [], true],
}

/** Values that this schema does not take. */
function badValues(document: Document, given: Schema): unknown[] {
  const schema = resolve(document, given)
  if (schema.anyOf ?? schema.oneOf) {
    const isNullable = (schema.anyOf ?? schema.oneOf)!.some((form) => form.type === 'null')
    return ['x', 1, {}, [], ...(isNullable ? [] : [null]), 'a\u0000b']
  }
  const values = [...(nonsense[schema.type ?? ''] ?? [])]
  if (schema.type === 'string') {
    const isFree = !schema.enum && schema.format !== 'uuid'
    if (schema.format !== 'password') values.push('a\u0000b', 'a\ud800b', '\udc00')
    if (!isFree) values.push('', 'x', "' OR 1=1 --", '01890a5d-ac96-774b-bcce-b302099a8057x', '__proto__', 'constructor')
    if (schema.minLength) values.push('')
    if (schema.maxLength) values.push('x'.repeat(schema.maxLength + 1), 'x'.repeat(schema.maxLength * 3))
  }
  if (schema.type === 'array') {
    values.push([null], [{}], [[]], ['x'], [1])
    if (schema.minItems) values.push([])
    if (schema.maxItems) values.push(Array(schema.maxItems + 1).fill('01890a5d-ac96-774b-bcce-b302099a8057'))
  }
  return values
}

const show = (value: unknown) => String(encode(value)).slice(0, 60)

function badBodies(
  document: Document,
  schema: Schema,
  known: Record<string, string>,
): [what: string, body: string | Uint8Array][] {
  const bodies: [string, string | Uint8Array][] = [
    ['broken JSON', '{"a":'],
    ['two values', '{}{}'],
    ['a comment', '{/**/}'],
    ['no UTF-8', Uint8Array.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])],
    ['a list', '[]'],
    ['null', 'null'],
    ['text', '"x"'],
    ['a number', '1e400'],
    ['a prototype', '{"__proto__":{"admin":true}}'],
    ['a prototype within', '{"x":{"__proto__":{"admin":true}}}'],
    ['a constructor', '{"constructor":{"prototype":{"admin":true}}}'],
    ['depth', `{"x":${'['.repeat(100_000)}${']'.repeat(100_000)}}`],
  ]
  for (const form of formsOf(document, schema)) {
    const valid = sample(document, form, 'body', known, true) as Record<string, unknown>
    bodies.push(['an unknown field', encode({ ...valid, is_admin: true })])
    bodies.push(['a field of the prototype', encode({ ...valid, toString: 1 })])
    for (const field of form.required ?? []) bodies.push([`no ${field}`, encode({ ...valid, [field]: undefined })])
    for (const [field, inner] of Object.entries(form.properties ?? {})) {
      for (const value of badValues(document, inner))
        bodies.push([`${field}: ${show(value)}`, encode({ ...valid, [field]: value })])
    }
  }
  return bodies
}

const smile = '%F0%9F%98%80'
const badTexts: Record<string, string[]> = {
  uuid: ['x', '1', '0', '%00', "'%20OR%201=1--", '__proto__', 'constructor', smile, '01890a5d-ac96-774b-bcce-b302099a8057x'],
  integer: ['x', '-1', '1.5', '1e3', '0x10', '%20', '', '9007199254740993', '9'.repeat(400), '%00', 'NaN', 'Infinity', '1,2'],
  enum: ['x', '', '1', 'TRUE', '%00', 'null'],
  string: ['', '%00', 'x'.repeat(4_000)],
}

export function badRequests(document: Document, operation: Operation, known: Record<string, string>): Bad[] {
  const path = fill(operation, known)
  const kindOf = (schema: Schema) =>
    schema.format === 'uuid' ? 'uuid' : schema.enum ? 'enum' : schema.type === 'integer' ? 'integer' : 'string'
  const body = operation.body && encode(sample(document, operation.body, 'body', known, true))
  const valid = body === undefined ? {} : { body }
  const query = operation.parameters.filter((p) => p.in === 'query' && p.required).map((p) => `${p.name}=abc`)
  const bad: Bad[] = [{ what: 'an unknown query', path: `${path}?${[...query, 'is_admin=true'].join('&')}`, ...valid }]
  for (const { name, in: place, schema } of operation.parameters) {
    if (place === 'path') {
      const values = [...badTexts.uuid!, '%ff', '%', '..%2F..%2Fetc', 'x'.repeat(300), '%E0%80']
      for (const value of values.filter((value) => schema.format !== 'emoji' || value !== smile))
        bad.push({ what: `${name} ${value}`, path: fill(operation, { ...known, [name]: value }), ...valid })
      continue
    }
    const limits = [schema.minimum, schema.maximum].flatMap((edge, n) =>
      edge === undefined ? [] : [String(edge + (n ? 1 : -1))],
    )
    for (const value of [...badTexts[kindOf(schema)]!, ...limits])
      bad.push({ what: `${name}=${value}`, path: `${path}?${name}=${value}`, ...valid })
    bad.push({ what: `${name} twice`, path: `${path}?${name}=1&${name}=2`, ...valid })
  }
  if (operation.body) {
    for (const [what, text] of badBodies(document, operation.body, known)) bad.push({ what, path, body: text })
  }
  return bad
}

export function fill({ path }: Operation, known: Record<string, string>): string {
  return path.replace(/\{(\w+)\}/g, (_, name: string) => known[name] ?? known.id!)
}
