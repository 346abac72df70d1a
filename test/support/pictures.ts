import sharp, { type Sharp } from 'sharp'

/** Pictures to upload. */

export const colour = (background: string, width = 600, height = 400): Sharp =>
  sharp({ create: { width, height, channels: 3, background } })

/** As a browser sends a file; its name is nothing that a server should believe. */
export function fileForm(bytes: Buffer | string, field = 'file'): FormData {
  const made = new FormData()
  made.append(field, new Blob([bytes as Uint8Array<ArrayBuffer>]), '../../picture.svg')
  return made
}

export const pictureForm = async (): Promise<FormData> => fileForm(await colour('red').jpeg().toBuffer())
