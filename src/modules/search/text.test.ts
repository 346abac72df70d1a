import { expect, test } from 'vitest'
import { highlight as mark } from './highlight.ts'
import { decode, encode } from './posts.ts'
import { fold, type Mode, parseQuery, tokens, wordsOf } from './text.ts'

test('case, accents and forms of a letter make no difference', () => {
  const pairs = [
    ['STRASSE', 'straße'],
    ['Ångström', 'angstrom'],
    ['Ærøskøbing', 'aeroskobing'],
    ['Łódź', 'lodz'],
    ['İstanbul', 'istanbul'],
    ['ΣΟΦΟΣ', 'σοφος'],
    ['Ёлка', 'елка'],
    ['كِتَاب', 'كتاب'],
    ['شָלום', 'شלום'],
    ['ｶﾞﾗｽ', 'ガラス'],
    ['e\u0301te\u0301', 'été'],
    ['ﬁn', 'fin'],
    ['한국', '한국'],
  ]
  for (const [a, b] of pairs) expect(fold(a!)).toBe(fold(b!))
  // These are not accents.
  expect(fold('हिन्दी')).toBe('हिन्दी')
  expect(fold('が')).not.toBe(fold('か'))
})

test('words, runs of scripts without spaces, emoji; punctuation is none', () => {
  const of = (text: string) => tokens(text).map(({ kind, text }) => `${kind} ${text}`)
  expect(of('Don’t panic: 42%')).toEqual(['word don', 'word t', 'word panic', 'word 42'])
  expect(of('a_b c-d')).toEqual(['word a', 'word b', 'word c', 'word d'])
  expect(of('東京Tower 2号')).toEqual(['run 東京', 'word tower', 'word 2', 'run 号'])
  expect(of('👍🏽 ❤️🇩🇪')).toEqual(['emoji 👍', 'emoji ❤', 'emoji 🇩🇪'])
  expect(of('می‌خواهم')).toEqual(['word ميخواهم'])
  expect(of(`:*&|!()<>'"\\%_ \u0301`)).toEqual([])
  expect([...wordsOf('東京都')]).toEqual(['東京', '京都', '都'])
  expect([...wordsOf('x'.repeat(63) + '𝒜𝒜 é')]).toEqual(['x'.repeat(63) + 'a', 'e'])
  expect([...wordsOf(`${'y'.repeat(63)}𐐷𐐷`)]).toEqual(['y'.repeat(63)])
  expect(wordsOf(Array.from({ length: 5_000 }, (_, n) => n).join(' ')).size).toBe(1_000)
  expect(parseQuery('a a A á b')).toHaveLength(2)
})

const highlight = (text: string, query: string, mode: Mode = 'beginning') => mark(text, tokens(text), parseQuery(query), mode)

test('hits are marked on the original text, and nothing else is HTML', () => {
  expect(highlight('Hello, world', 'WOR hel')).toBe('<mark>Hel</mark>lo, <mark>wor</mark>ld')
  expect(highlight('Crème brûlée', 'brule')).toBe('Crème <mark>brûlé</mark>e')
  expect(highlight('Cre\u0300me', 'cre')).toBe('<mark>Cre\u0300</mark>me')
  expect(highlight('Straße', 'stras')).toBe('<mark>Straß</mark>e')
  expect(highlight('ΣΟΦΟΣ', 'σοφος')).toBe('<mark>ΣΟΦΟΣ</mark>')
  expect(highlight(`<b title="x">'&'</b>`, 'b')).toBe(
    '&lt;<mark>b</mark> title=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/<mark>b</mark>&gt;',
  )
  expect(highlight('<script>alert(1)</script>', 'script')).not.toMatch(/<(?!\/?mark>)/)
  expect(highlight('私は東京都に住む、東京!', '東京')).toBe('私は<mark>東京</mark>都に住む、<mark>東京</mark>!')
  expect(highlight('Donaudampfschiff', 'dampf')).toBe('Donaudampfschiff')
  expect(highlight('Donaudampfschiff', 'dampf', 'within')).toBe('Donau<mark>dampf</mark>schiff')
  // One letter is a word, not a beginning.
  expect(highlight('a an', 'a')).toBe('<mark>a</mark> an')
  expect(highlight('aaaa aa', 'aa aaa')).toBe('<mark>aaa</mark>a <mark>aa</mark>')
})

test('a long text is cut around its first hit, between characters', () => {
  const long = `${'😀'.repeat(500)} needle ${'é'.repeat(500)} needle`
  const html = highlight(long, 'needle')
  expect(html).toContain('<mark>needle</mark>')
  expect(html.isWellFormed()).toBe(true)
  expect(html.length).toBeLessThan(300)
  expect([html.at(0), html.at(-1)]).toEqual(['…', '…'])
  const end = highlight(`${'word '.repeat(200)}needle`, 'needle')
  expect(end).toMatch(/^…word .*<mark>needle<\/mark>$/)
})

test('sets of messages come back as they were', () => {
  for (const offsets of [
    [],
    [0],
    [1023],
    [0, 513, 1023],
    Array.from({ length: 63 }, (_, n) => n * 16),
    [...Array(64).keys()],
    [...Array(1024).keys()],
  ]) {
    const bytes = Buffer.from(encode([...offsets, ...offsets].reverse()), 'hex')
    expect(decode(bytes)).toEqual(offsets)
    expect(bytes.length).toBeLessThanOrEqual(128)
  }
})
