import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { Bus } from './bus/bus.ts'
import type { Db } from './db/db.ts'

/** What Prometheus is told. Names follow its habits: `_total` for counters, seconds for times. Labels have few values, never ids. */
export function createMetrics() {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const registers = [registry]

  const frames = { in: 0, out: 0 }
  const tally = (name: string, help: string, direction: keyof typeof frames) => {
    const counter: Counter = new Counter({
      name,
      help,
      registers,
      collect() {
        counter.reset()
        counter.inc(frames[direction])
      },
    })
  }
  tally('parley_websocket_frames_in_total', 'Frames from clients', 'in')
  tally('parley_websocket_frames_out_total', 'Frames to clients', 'out')

  return {
    registry,
    http: new Histogram({
      name: 'parley_http_request_seconds',
      help: 'Time from the first byte of a request to the end of its answer',
      labelNames: ['method', 'route', 'status'] as const,
      buckets: [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
      registers,
    }),
    sockets: new Gauge({
      name: 'parley_websocket_connections',
      help: 'Open live connections, event streams among them',
      registers,
    }),
    /** Counted by hand, because they are too many to look a counter up for each: read at every scrape. */
    frames,
    closes: new Counter({
      name: 'parley_websocket_closes_total',
      help: 'Connections closed by the server',
      labelNames: ['reason'] as const,
      registers,
    }),
    messages: new Counter({ name: 'parley_messages_total', help: 'Messages committed', registers }),
    indexed: new Counter({ name: 'parley_search_indexed_total', help: 'Messages indexed for search', registers }),
    delivery: new Histogram({
      name: 'parley_delivery_seconds',
      help: 'Time from the commit of a message to its hand-over to the sockets of this instance',
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5],
      registers,
    }),
    gateFills: new Counter({
      name: 'parley_gate_fills_total',
      help: 'Holes in a stream that were filled from the database',
      registers,
    }),
    limitFallbacks: new Counter({
      name: 'parley_limit_fallbacks_total',
      help: 'Hits that were counted in this process because Redis was away',
      registers,
    }),
    loginsRefused: new Counter({
      name: 'parley_logins_refused_total',
      help: 'Logins refused',
      labelNames: ['reason'] as const,
      registers,
    }),
    /** Reads the length of the write path's queue at every scrape. */
    watchWriter(writer: { readonly queued: number }) {
      const gauge: Gauge = new Gauge({
        name: 'parley_writer_queue',
        help: 'Sends that wait for their commit',
        registers,
        collect() {
          gauge.set(writer.queued)
        },
      })
    },
    /** Reads how far the search index is behind at every scrape. */
    watchIndexer(indexer: { readonly behind: number }) {
      const gauge: Gauge = new Gauge({
        name: 'parley_search_behind_seconds',
        help: 'Since when the oldest message waits that is not indexed for search yet',
        registers,
        collect() {
          gauge.set(indexer.behind)
        },
      })
    },
    /** Reads the pool at every scrape. */
    watchDb(db: Db) {
      const gauge: Gauge<'state'> = new Gauge({
        name: 'parley_database_connections',
        help: 'Connections of the pool, and callers that wait for one',
        labelNames: ['state'] as const,
        registers,
        collect() {
          gauge.set({ state: 'total' }, db.total)
          gauge.set({ state: 'idle' }, db.idle)
          gauge.set({ state: 'waiting' }, db.waiting)
        },
      })
    },
    /** Reads the bus at every scrape. */
    watchBus(bus: Bus) {
      const up: Gauge = new Gauge({
        name: 'parley_bus_connected',
        help: '1 while news between instances pass',
        registers,
        collect(): void {
          up.set(bus.connected ? 1 : 0)
        },
      })
      let seen = 0
      const dropped: Counter = new Counter({
        name: 'parley_bus_dropped_total',
        help: 'Publications that the bus did not pass on',
        registers,
        collect() {
          dropped.inc(bus.dropped - seen)
          seen = bus.dropped
        },
      })
    },
  }
}

export type Metrics = ReturnType<typeof createMetrics>
