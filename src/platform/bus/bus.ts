/**
 * News between instances. A bus may lose, double, delay and reorder what it carries: whoever needs certainty
 * reads PostgreSQL. It carries bytes, delivers asynchronously, and a publication reaches every other instance that has
 * subscribed to the channel; it may come back to its publisher, who has to know its own. Listeners must not throw.
 */
export interface Bus {
  /**
   * Resolves true once publications to these channels reach this instance. Subscriptions are kept until
   * `unsubscribe` (they are wishes, not counted: the last one wins) and restored by the bus itself after an outage.
   * While the bus is away the promise waits for its return only `subscribeTimeoutMs` (2 s unless told), then
   * resolves false: the subscription stays wanted, and `onGap` tells when it holds. Also false for a channel
   * that was unsubscribed in the meantime. Never rejects.
   */
  subscribe(channels: readonly string[]): Promise<boolean>
  unsubscribe(channels: readonly string[]): void
  /**
   * Best effort, never throws, never waits. The payload may be reused afterwards. Publications of one instance on
   * one channel keep their order where the bus is kind.
   */
  publish(channel: string, payload: Buffer): void
  /** Called for each publication on a subscribed channel. One listener. */
  onMessage(listener: (channel: string, payload: Buffer) => void): void
  /** Called after every moment in which publications may have been missed, once all subscriptions hold again. One listener. */
  onGap(listener: () => void): void
  /** False while publications are known not to pass. */
  readonly connected: boolean
  /** Publications of this instance that the bus knows not to have passed on, since its start. */
  readonly dropped: number
  /** Idempotent. What was published just before is still sent where that takes no more than half a second. */
  close(): Promise<void>
}
