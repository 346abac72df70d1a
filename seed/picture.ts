import { createHash } from 'node:crypto'
import sharp from 'sharp'

const side = 320
const cells = 5

/** A pattern of a name's own, the same on both sides, in its own colours: PNG. The same name has the same picture. */
export async function pictureOf(name: string): Promise<Buffer> {
  const bytes = createHash('sha256').update(name).digest()
  const hue = Math.round((bytes[0]! * 360) / 256)
  const cell = side / (cells + 1)
  const squares = Array.from({ length: cells * cells }, (_, n) => {
    const [row, column] = [Math.floor(n / cells), n % cells]
    const isOn = bytes[1 + row * cells + Math.min(column, cells - 1 - column)]! % 2 === 0
    return isOn
      ? `<rect x="${(column + 0.5) * cell}" y="${(row + 0.5) * cell}" width="${cell + 0.5}" height="${cell + 0.5}"/>`
      : ''
  })
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${side}" height="${side}"><rect width="${side}" height="${side}" fill="hsl(${hue}, 55%, 88%)"/><g fill="hsl(${(hue + 20) % 360}, 60%, 42%)">${squares.join('')}</g></svg>`
  return sharp(Buffer.from(svg)).png().toBuffer()
}
