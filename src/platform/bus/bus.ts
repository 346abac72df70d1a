/**
 * News between instances. A bus may lose, double, delay and reorder what it carries: whoever needs certainty
 * reads PostgreSQL. It carries bytes, delivers asynchronously, and a publication reaches every instance that has
 * subscribed to the channel, the publisher's own too.
 */
export interface Bus {
  /**
   * Resolves once publications to these channels reach this instance. Subscriptions are kept until `unsubscribe`
   * and restored by the bus itself after an outage. While the bus is away the promise waits for its return only
   * `subscribeTimeoutMs`, then resolves false: the subscription stays wanted, and `onGap` tells when it holds.
   */
  subscribe(channels: readonly string[]): Promise<boolean>
  unsubscribe(channels: readonly string[]): void
  /** Best effort, never throws, never waits. Publications of one instance on one channel keep their order where the bus is kind. */
  publish(channel: string, payload: Buffer): void
  /** Called for each publication on a subscribed channel. One listener. */
  onMessage(listener: (channel: string, payload: Buffer) => void): void
  /** Called after every moment in which publications may have been missed, once all subscriptions hold again. */
  onGap(listener: () => void): void
  /** False while publications are known not to pass. */
  readonly connected: boolean
  close(): Promise<void>
}
