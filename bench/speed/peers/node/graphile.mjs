// Drives Graphile Worker. At `defaults` as its README has it: run() with one job at a time. At `best`: a local queue
// that fetches many jobs at once, and completions by batch; but its defaults where latency is measured, as both add some.
import { Logger, makeWorkerUtils, run } from 'graphile-worker'
import pg from 'pg'

import { best, scenario, serve, target } from './protocol.mjs'

const TASK = 'bench'
const WORKER = best && scenario !== 'latency'
  ? { concurrentJobs: 100, localQueue: { size: 2000 }, completeJobBatchDelay: 5 }
  : {}

// The log's default place is stdout, where the harness reads answers.
const logger = new Logger(() => (level, message) => {
  if (level === 'error' || level === 'warning') console.error(message)
})

class Graphile {
  utils
  runner
  lookup = new pg.Pool({ connectionString: target, max: 1 })

  async setup() {
    await this.openPublisher()
    await this.utils.migrate()
  }

  async openPublisher() {
    this.utils ??= await makeWorkerUtils({ connectionString: target, logger })
  }

  async publish(jobs) {
    if (jobs.length === 1) return this.utils.addJob(TASK, jobs[0])
    return this.utils.addJobs(jobs.map((payload) => ({ identifier: TASK, payload })))
  }

  async startWorker(handle) {
    const taskList = { [TASK]: async (payload) => handle(payload) }
    this.runner = await run({
      connectionString: target, logger, taskList, noHandleSignals: true, preset: { worker: WORKER },
    })
  }

  async stopWorker() {
    await this.runner.stop()
  }

  async remaining() {
    const { rows } = await this.lookup.query('SELECT count(*)::int AS n FROM graphile_worker._private_jobs')
    return rows[0].n
  }

  async close() {
    await this.utils?.release()
    await this.lookup.end()
  }
}

await serve(new Graphile())
