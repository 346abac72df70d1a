/** Why the server closes a WebSocket, and what the client should do then. */
export const closeCodes = {
  binary_frame: [1003, 'Binary frames are not spoken here', 'stop'],
  frame_too_large: [1009, 'The frame is larger than 64 KiB', 'stop'],
  internal_error: [1011, 'Something went wrong on the server', 'reconnect'],
  unauthorized: [4001, 'Signed out, bad token, or no token in time', 'sign_in'],
  token_expired: [4003, 'The token has expired', 'refresh'],
  too_slow: [4008, 'The send queue passed 1 MiB', 'reconnect'],
  too_many_frames: [4009, 'Too many frames', 'reconnect'],
  too_many_connections: [4010, 'The session has opened 50 others since', 'stop'],
  shutting_down: [4011, 'The server is shutting down', 'reconnect'],
} as const satisfies Record<string, readonly [code: number, reason: string, client: 'reconnect' | 'refresh' | 'sign_in' | 'stop']>

export type CloseReason = keyof typeof closeCodes
