// Jobwire through its public Node client, everything at its defaults but the handler's concurrency: as in jobwire_driver.py.
//
// `BENCH_CLIENT` is the folder of the client to drive, built. Node's peers are driven by the same code.
import { pathToFileURL } from 'node:url'

import { best, serve, target } from '../peers/node/protocol.mjs'

const { Client, Worker } = await import(pathToFileURL(`${process.env.BENCH_CLIENT}/dist/esm/index.js`))

const QUEUE = 'bench'
const HANDLER = best ? { concurrency: 1000 } : {}

class Jobwire {
  client
  worker

  async setup() {} // the first call makes the queue

  async openPublisher() {
    this.client ??= new Client(target)
  }

  async publish(jobs) {
    if (jobs.length === 1) return this.client.publish(QUEUE, jobs[0])
    return this.client.publishMany(QUEUE, jobs.map((data) => ({ data })))
  }

  async startWorker(handle) {
    this.worker = new Worker(target).handler(QUEUE, HANDLER, (job) => handle(job.data))
    await this.worker.start()
  }

  /** A worker has stopped when all its Acks are answered and its session is closed. */
  async finish() {
    await this.worker.stop()
  }

  async close() {
    await this.client?.close()
  }
}

await serve(new Jobwire())
