import type { Bus } from '../platform/bus/bus.ts'

/** Subscriptions of one turn of the event loop go in one command: whoever connects brings all of their chats at once. */
export function subscriber(bus: Pick<Bus, 'subscribe'>): (channel: string) => Promise<unknown> {
  let gathering: { channels: string[]; done: Promise<unknown> } | undefined
  return (channel) => {
    if (gathering) {
      gathering.channels.push(channel)
      return gathering.done
    }
    const channels = [channel]
    const done = new Promise<void>((resolve) => setImmediate(resolve)).then(() => {
      gathering = undefined
      return bus.subscribe(channels)
    })
    gathering = { channels, done }
    return done
  }
}
