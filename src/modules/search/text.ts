/**
 * How text becomes words: the same for what is indexed, what is asked and what is marked. Done here and not in PostgreSQL,
 * whose parser and `unaccent` depend on the locale and the version of the database.
 */

export type Kind =
  /** Letters and digits. */
  | 'word'
  /** Of a script that puts no space between words: found by any part of it. */
  | 'run'
  | 'emoji'

export interface Token {
  kind: Kind
  /** Folded. */
  text: string
  /** Place in the original, in UTF-16 code units. */
  start: number
  end: number
}

/** A word that is asked for. */
export type Term = Pick<Token, 'kind' | 'text'>

/** Longer words are known by their beginning. */
const maxWordLength = 64
/** Of one message; what comes after is not found. */
const maxWords = 1_000
/** Of one query; what comes after is left out. */
const maxTerms = 10

const unspaced = String.raw`[[\p{scx=Hani}\p{scx=Hira}\p{scx=Kana}\p{scx=Bopo}\p{sc=Thai}\p{sc=Laoo}\p{sc=Khmr}\p{sc=Mymr}]&&[\p{L}\p{N}\p{M}]]`
/** Zero-width joiners are part of a word in Persian and in Indian scripts. */
const spaced = String.raw`[[\p{L}\p{N}\p{M}\u200c\u200d]--${unspaced}]`
const pattern = new RegExp(String.raw`(${unspaced}+)|(\p{RI}\p{RI}|\p{Extended_Pictographic})|${spaced}+`, 'gv')

export const isAscii = /^[\0-\x7f]*$/
const asciiWord = /[a-z0-9]+/gi

/** Accents and vowel points; not the vowel signs of Indian scripts, which are letters to their readers. */
const marks =
  // biome-ignore lint/suspicious/noMisleadingCharacterClass: it is the marks alone that are meant
  /\p{Join_Control}|\p{Variation_Selector}|[\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u08d3-\u08e1\u08e3-\u08ff\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]/gu

/** Letters that Unicode does not take apart, and those that are written in two ways. */
const alike: Record<string, string> = {
  ß: 'ss',
  æ: 'ae',
  œ: 'oe',
  ø: 'o',
  đ: 'd',
  ð: 'd',
  þ: 'th',
  ł: 'l',
  ħ: 'h',
  ı: 'i',
  ŋ: 'n',
  ŧ: 't',
  ς: 'σ',
  ی: 'ي',
  ى: 'ي',
  ک: 'ك',
  ة: 'ه',
}
const alikePattern = new RegExp(`[${Object.keys(alike).join('')}]`, 'gu')

/** Lower case, no accents, one form for each character. */
export function fold(text: string): string {
  if (isAscii.test(text)) return text.toLowerCase()
  return text
    .normalize('NFKD')
    .toLowerCase()
    .replace(marks, '')
    .replace(alikePattern, (letter) => alike[letter]!)
    .normalize('NFC')
}

/** In the order of the text. */
export function tokens(text: string): Token[] {
  const found: Token[] = []
  if (isAscii.test(text)) {
    for (const { 0: word, index } of text.matchAll(asciiWord))
      found.push({ kind: 'word', text: word.toLowerCase().slice(0, maxWordLength), start: index, end: index + word.length })
    return found
  }
  for (const { 0: part, 1: run, 2: emoji, index } of text.matchAll(pattern)) {
    const folded = fold(part)
    // Marks alone are no word.
    if (folded === '') continue
    const kind = run !== undefined ? 'run' : emoji !== undefined ? 'emoji' : 'word'
    found.push({ kind, text: kind === 'word' ? beginning(folded) : folded, start: index, end: index + part.length })
  }
  return found
}

/** Without half a character at its end. */
const beginning = (word: string) => word.slice(0, maxWordLength).replace(/[\ud800-\udbff]$/, '')

/** Pairs of neighbours, and the last character alone: any character begins one of them. */
function pairs(run: string): string[] {
  const characters = Array.from(run)
  return characters.map((character, n) => character + (characters[n + 1] ?? ''))
}

/** What a message is indexed by. */
export function wordsOf(text: string): Set<string> {
  const words = new Set<string>()
  for (const { kind, text: word } of tokens(text)) {
    if (kind === 'run') for (const pair of pairs(word)) words.add(pair)
    else words.add(word)
    if (words.size >= maxWords) break
  }
  return words
}

/** Stands among a message's words for who wrote it; no text folds to it. */
export const bySender = (userId: string) => `\u0002${userId}`

/** What is asked for; empty where there is nothing that could be found. */
export function parseQuery(query: string): Term[] {
  const terms = new Map<string, Term>()
  for (const { kind, text } of tokens(query)) if (terms.size < maxTerms) terms.set(text, { kind, text })
  return [...terms.values()]
}

/** A single letter stands for itself; longer words for all that begin with them. */
const isPrefix = ({ kind, text }: Term) => (kind === 'word' ? text.length > 1 : kind === 'run' && Array.from(text).length === 1)

/** From three characters on a word is looked for within others, if that is wanted. */
export const hasPieces = ({ kind, text }: Term) => kind === 'word' && Array.from(text).length >= 3

export function pieces(word: string): string[] {
  const characters = Array.from(word)
  return characters.slice(2).map((_, n) => characters.slice(n, n + 3).join(''))
}

/** A range of words in byte order, `hi` exclusive; all of a term's ranges must have a word of the message. */
export interface Range {
  lo: string
  hi: string
}

export const exactly = (word: string): Range => ({ lo: word, hi: `${word}\u0001` })
const beginningWith = (word: string): Range => ({ lo: word, hi: `${word}\u{10ffff}` })

export function rangesOf(term: Term): Range[] {
  if (isPrefix(term)) return [beginningWith(term.text)]
  if (term.kind === 'run') return [...new Set(pairs(term.text).slice(0, -1))].map(exactly)
  return [exactly(term.text)]
}

/** How words are compared: by their beginning, or (`within`) by any part. */
export type Mode = 'beginning' | 'within'

/** Where the term is in this word: places in the folded word, or nothing. */
export function placesIn(word: Term, term: Term, mode: Mode): [from: number, to: number][] {
  if (word.kind !== term.kind) return []
  const { text } = term
  if (term.kind === 'run' || (mode === 'within' && hasPieces(term))) {
    const places: [number, number][] = []
    for (let at = word.text.indexOf(text); at >= 0; at = word.text.indexOf(text, at + text.length))
      places.push([at, at + text.length])
    return places
  }
  const found = isPrefix(term) ? word.text.startsWith(text) : word.text === text
  return found ? [[0, text.length]] : []
}

export const isIn = (word: Term, term: Term, mode: Mode): boolean => placesIn(word, term, mode).length > 0

/** Whether all terms are in the text. */
export const matches = (words: readonly Term[], terms: readonly Term[], mode: Mode): boolean =>
  terms.every((term) => words.some((word) => isIn(word, term, mode)))

/** Whether the terms stand side by side, in their order. */
export const isPhrase = (words: readonly Term[], terms: readonly Term[], mode: Mode): boolean =>
  words.some((_, at) => terms.every((term, n) => at + n < words.length && isIn(words[at + n]!, term, mode)))
