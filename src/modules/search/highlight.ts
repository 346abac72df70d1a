import { fold, isAscii, type Mode, placesIn, type Term, type Token } from './text.ts'

/** Longer texts are cut to about so many characters, around the first hit. */
const maxLength = 240
/** Of what stands before it. */
const before = 60

const escapes: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }
const escapeHtml = (text: string) => text.replace(/[&<>"']/g, (character) => escapes[character]!)

/** The text, taken apart into `words`, as HTML: hits within `<mark>`, all else escaped. */
export function highlight(text: string, words: readonly Token[], terms: readonly Term[], mode: Mode): string {
  const hits = hitsIn(text, words, terms, mode)
  const [from, to] = text.length <= maxLength ? [0, text.length] : windowAround(text, hits[0]?.[0] ?? 0)
  let html = from > 0 ? '…' : ''
  let at = from
  for (const [start, end] of hits) {
    if (start < at || end > to) continue
    html += `${escapeHtml(text.slice(at, start))}<mark>${escapeHtml(text.slice(start, end))}</mark>`
    at = end
  }
  return `${html}${escapeHtml(text.slice(at, to))}${to < text.length ? '…' : ''}`
}

/** In order, none within another. */
function hitsIn(text: string, words: readonly Token[], terms: readonly Term[], mode: Mode): [start: number, end: number][] {
  const hits = words.flatMap((token) =>
    terms.flatMap((term) => placesIn(token, term, mode).map(([from, to]) => original(text, token, from, to))),
  )
  hits.sort((a, b) => a[0] - b[0] || b[1] - a[1])
  const joined: [number, number][] = []
  for (const [start, end] of hits) {
    const last = joined.at(-1)
    if (last && start <= last[1]) last[1] = Math.max(last[1], end)
    else joined.push([start, end])
  }
  return joined
}

/** Where a place in the folded word is in the text: whole characters, with the accents that stand on them. */
function original(text: string, token: Token, from: number, to: number): [number, number] {
  const source = text.slice(token.start, token.end)
  // Most words fold to themselves.
  if (source.length === token.text.length && isAscii.test(source)) return [token.start + from, token.start + to]
  const characters = source.match(/\P{M}[\p{M}\u200c\u200d]*|\p{M}+/gu) ?? []
  const folded = characters.map(fold)
  // What folds to something else as a whole than by its characters is marked as a whole.
  if (!folded.join('').startsWith(token.text)) return [token.start, token.end]
  let at = 0
  let place = token.start
  let start = token.start
  for (const [n, character] of characters.entries()) {
    if (at <= from) start = place
    at += folded[n]!.length
    place += character.length
    if (at >= to) break
  }
  return [start, place]
}

/** From and to where there is white space, if there is any near. */
function windowAround(text: string, hit: number): [number, number] {
  const wanted = Math.max(0, Math.min(hit - before, text.length - maxLength))
  let from = wanted
  if (from > 0) {
    const space = text.slice(wanted, hit).search(/\s/)
    from = space >= 0 && space < before / 2 ? wanted + space + 1 : whole(text, wanted)
  }
  let to = Math.min(text.length, from + maxLength)
  if (to < text.length) {
    const space = text.lastIndexOf(' ', to)
    to = space > to - before / 2 ? space : whole(text, to)
  }
  return [from, to]
}

/** Not in the middle of a character. */
const whole = (text: string, at: number) => (/[\udc00-\udfff]/.test(text[at] ?? '') ? at - 1 : at)
