/** Lines over time, one below the other, as an SVG that any browser shows. */

export interface Line {
  name: string
  unit: string
  /** Seconds and value; a value that is not a number leaves a gap. */
  points: [seconds: number, value: number][]
}

const width = 900
const height = 90
const left = 60
const top = 26

/** 1, 2 or 5 times a power of ten, not below. */
function roundUp(value: number): number {
  if (!(value > 0)) return 1
  const power = 10 ** Math.floor(Math.log10(value))
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= value) ?? value
}

export function plot(title: string, lines: readonly Line[]): string {
  const end = Math.max(1, ...lines.flatMap((line) => line.points.map(([seconds]) => seconds)))
  const total = lines.length * (height + top) + 40
  const panels = lines.map((line, n) => panel(line, n * (height + top), end))
  const ticks = Array.from({ length: 7 }, (_, n) => {
    const x = left + (n * (width - left - 20)) / 6
    return `<text x="${x.toFixed(1)}" y="${total - 18}" text-anchor="middle">${Math.round((n * end) / 6)} s</text>`
  })
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${total}" font-family="sans-serif" font-size="11" fill="#333">
<title>${title}</title>
<rect width="${width}" height="${total}" fill="#fff"/>
${[...panels, ...ticks].join('\n')}
</svg>
`
}

function panel({ name, unit, points }: Line, y: number, end: number): string {
  const known = points.filter(([, value]) => Number.isFinite(value))
  const most = roundUp(Math.max(0, ...known.map(([, value]) => value)))
  const base = y + top + height - 10
  const x = (seconds: number) => (left + (seconds / end) * (width - left - 20)).toFixed(1)
  const at = (value: number) => (base - (value / most) * (height - 10)).toFixed(1)
  const path = known.map(([seconds, value]) => `${x(seconds)},${at(value)}`).join(' ')
  return `<text x="${left}" y="${y + top - 6}" font-weight="bold">${name}${unit && `, ${unit}`}</text>
<line x1="${left}" y1="${base}" x2="${width - 20}" y2="${base}" stroke="#999"/>
<line x1="${left}" y1="${at(most)}" x2="${width - 20}" y2="${at(most)}" stroke="#ddd"/>
<text x="${left - 6}" y="${base + 4}" text-anchor="end">0</text>
<text x="${left - 6}" y="${Number(at(most)) + 4}" text-anchor="end">${most}</text>
<polyline points="${path}" fill="none" stroke="#2a6fb0" stroke-width="1.3"/>`
}
