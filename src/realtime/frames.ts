/**
 * A WebSocket text frame as the server sends it (RFC 6455 §5.2: FIN, opcode 1, not masked), ready to be written to any
 * number of sockets as it is: one encoding, whoever hears it.
 */
export function encodeFrame(text: string): Buffer {
  const length = Buffer.byteLength(text)
  const head = length < 126 ? 2 : length < 65_536 ? 4 : 10
  const frame = Buffer.allocUnsafe(head + length)
  frame[0] = 0x81
  if (head === 2) frame[1] = length
  else if (head === 4) {
    frame[1] = 126
    frame.writeUInt16BE(length, 2)
  } else {
    frame[1] = 127
    frame.writeUInt32BE(0, 2)
    frame.writeUInt32BE(length, 6)
  }
  frame.write(text, head)
  return frame
}

/** The texts of frames that `encodeFrame` has made, one after the other in `bytes`. They share its memory. */
export function decodeFrames(bytes: Buffer): Buffer[] {
  const texts: Buffer[] = []
  for (let at = 0; at < bytes.length; ) {
    const short = bytes[at + 1]!
    const head = short < 126 ? 2 : short === 126 ? 4 : 10
    const length = head === 2 ? short : head === 4 ? bytes.readUInt16BE(at + 2) : bytes.readUInt32BE(at + 6)
    texts.push(bytes.subarray(at + head, at + head + length))
    at += head + length
  }
  return texts
}
