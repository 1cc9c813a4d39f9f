// Drives pg-boss. At `defaults` as its README has it: new PgBoss(dsn), send, and work(queue, handler), which takes one
// job each 2 seconds. At `best`: NOTIFY where a job is awaited, and not where it only costs.
import pg from 'pg'
import { PgBoss } from 'pg-boss'

import { best, scenario, serve, target } from './protocol.mjs'

const QUEUE = 'bench'
// NOTIFY costs a third of the rate of single sends, and more end to end. Without it a job waits for a poll, each half
// second at best.
const NOTIFY = best && ['latency', ''].includes(scenario)
const CONNECTIONS = best ? { max: 16, schedule: false, useListenNotify: NOTIFY } : {}
const WORKER = best
  ? { batchSize: 2000, localConcurrency: 2, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 }
  : {}

class Boss {
  boss
  lookup = new pg.Pool({ connectionString: target, max: 1 })

  async setup() {
    await this.openPublisher()
    await this.boss.createQueue(QUEUE, { notify: NOTIFY })
  }

  async openPublisher() {
    if (this.boss) return
    const boss = new PgBoss({ connectionString: target, ...CONNECTIONS })
    boss.on('error', console.error)
    boss.on('warning', console.error)
    this.boss = await boss.start()
  }

  async publish(jobs) {
    if (jobs.length === 1) return this.boss.send(QUEUE, jobs[0])
    return this.boss.insert(QUEUE, jobs.map((data) => ({ data })))
  }

  async startWorker(handle) {
    await this.openPublisher()
    await this.boss.work(QUEUE, WORKER, async (jobs) => { for (const job of jobs) handle(job.data) })
  }

  async stopWorker() {
    await this.boss.offWork(QUEUE)
  }

  async remaining() {
    const { rows } = await this.lookup.query(`SELECT count(*)::int AS n FROM pgboss.job WHERE state < 'completed'`)
    return rows[0].n
  }

  async close() {
    await this.boss?.stop()
    await this.lookup.end()
  }
}

await serve(new Boss())
