import type { Bus } from './bus/bus.ts'

/** What concerns every instance at once, whoever is connected to it. */
export interface ControlNews {
  /** These sessions have ended: forget them, close their sockets. */
  sessions_ended?: string[]
  /** Something shown of this user, or what they may do, has changed: forget what is cached of them. */
  user_changed?: string
  /** Who may write in this chat has changed, and nothing in the chat tells so: forget what is remembered of it. */
  acl_changed?: string
}

export interface Control {
  /** This instance hears it at once (before the call returns), the others through the bus. Call it after the commit. */
  announce(news: ControlNews): void
  on(listener: (news: ControlNews) => void): void
}

export const controlChannel = 'control'

/** `deliver` is for the owner of the bus, which hands over what arrives on the control channel. */
export function createControl(bus: Bus, instanceId: string): Control & { deliver(payload: Buffer): void } {
  const listeners: ((news: ControlNews) => void)[] = []
  return {
    announce(news) {
      for (const listener of listeners) listener(news)
      bus.publish(controlChannel, Buffer.from(JSON.stringify({ from: instanceId, news })))
    },
    on(listener) {
      listeners.push(listener)
    },
    deliver(payload) {
      const { from, news } = JSON.parse(payload.toString()) as { from: string; news: ControlNews }
      if (from === instanceId) return
      for (const listener of listeners) listener(news)
    },
  }
}
