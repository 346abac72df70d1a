import { expect, test } from 'vitest'
import { decodeFrames, encodeFrame } from './frames.ts'

test('what was encoded is decoded, of any length, and many in a row', () => {
  const texts = ['', 'é\u{1f600}', ...[125, 126, 127, 65_535, 65_536, 200_000].map((length) => 'x'.repeat(length)), '{}']
  for (const text of texts) expect(decodeFrames(encodeFrame(text)).map(String)).toEqual([text])
  expect(decodeFrames(Buffer.concat(texts.map(encodeFrame))).map(String)).toEqual(texts)
  expect(decodeFrames(Buffer.alloc(0))).toEqual([])
})
