// What the Node drivers share: the harness's commands, read from stdin and answered on stdout, in terms of a few things
// that each peer does in its own way. Always true: stdout carries answers and nothing else; a job counts as finished only
// when the peer's tables say so, which is looked up each 10 ms once the last handler has run, or when its worker has
// stopped, if that waits for it.
//
// A peer is an object with
//   setup()           makes schema and queue
//   openPublisher()   connects what publishes
//   publish(jobs)     publishes an array of jobs by one call, by the product's publish-one call if it is one job
//   startWorker(handle)  starts the product's worker; handle(job) is to be called for every job
//   remaining()       counts the jobs without a durable outcome
//   stopWorker()      stops the worker in order
//   finish()          instead of these two: stops the worker, and is done when all outcomes are durable
//   close()           disconnects
import { randomBytes } from 'node:crypto'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'

const LOOK_AGAIN_MS = 10
const WARM_UP_JOBS = 3
const PAYLOAD_BYTES = Number(process.env.BENCH_PAYLOAD_BYTES ?? 200)
const NOISE = randomBytes(4096).toString('hex')

export const target = process.env.BENCH_TARGET
export const best = process.env.BENCH_SETTINGS === 'best'
export const scenario = process.env.BENCH_SCENARIO ?? ''

/** The wall clock in ns, to a quarter of a microsecond, which is what a double holds of it. */
const now = () => Math.round((performance.timeOrigin + performance.now()) * 1e6)

function makeJob(number) {
  const job = { job: number, sent: now(), text: '' }
  const length = PAYLOAD_BYTES - JSON.stringify(job).length
  const start = number % (NOISE.length - PAYLOAD_BYTES)
  job.text = NOISE.slice(start, start + length)
  return job
}

/** Calls `publish` from so many callers at once, each waiting for its answer before its next call. */
async function publishAll(peer, { jobs, batch = 1, tasks = 16 }) {
  await peer.openPublisher()
  let next = 0
  const caller = async () => {
    while (next < jobs) {
      const start = next
      next = Math.min(start + batch, jobs)
      await peer.publish(Array.from({ length: next - start }, (_, index) => makeJob(start + index)))
    }
  }
  const began = now()
  await Promise.all(Array.from({ length: tasks }, caller))
  return { began, ended: now(), jobs, calls: Math.ceil(jobs / batch) }
}

async function work(peer, { jobs }, say) {
  let handled = 0
  let began = 0
  let allHandled = () => {}
  const last = new Promise((resolve) => { allHandled = resolve })
  await peer.remaining?.() // connects, so that the first look at the end does not have to
  await peer.startWorker(() => {
    handled += 1
    if (handled === 1) began = now()
    if (handled === jobs) allHandled()
  })
  say({ event: 'working' })
  await last
  return { began, ended: await end(peer), jobs }
}

/** Publishes a job each `every_ms`, give or take half of it, so that no job falls in step with a polling peer. */
async function measureLatency(peer, { jobs, every_ms: every = 50 }) {
  const latencies = []
  let arrived = () => {}
  await peer.openPublisher()
  await peer.startWorker((job) => {
    latencies.push((now() - job.sent) / 1000)
    arrived()
  })
  for (let number = 0; number < WARM_UP_JOBS; number += 1) {
    const arrival = new Promise((resolve) => { arrived = resolve })
    await peer.publish([makeJob(number)])
    await arrival
  }
  latencies.length = 0
  const allArrived = new Promise((resolve) => { arrived = () => { if (latencies.length === jobs) resolve() } })
  for (let number = 0; number < jobs; number += 1) {
    await sleep(every * (0.5 + Math.random()))
    await peer.publish([makeJob(number)])
  }
  await allArrived
  await end(peer)
  return { latencies_us: latencies }
}

/** Stops the worker once nothing is left to do; gives when that was. */
async function end(peer) {
  if (peer.finish) {
    await peer.finish()
    return now()
  }
  const ended = await whenDurable(peer)
  await peer.stopWorker()
  return ended
}

/** Waits until no job is left; gives when the look that found none began, which is when it was true. */
async function whenDurable(peer) {
  for (;;) {
    const began = now()
    if ((await peer.remaining()) === 0) return began
    await sleep(LOOK_AGAIN_MS)
  }
}

/** Answers the harness's commands until its end of stdin. */
export async function serve(peer) {
  const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`)
  const commands = {
    setup: () => peer.setup(),
    publish: (command) => publishAll(peer, command),
    work: (command) => work(peer, command, say),
    latency: (command) => measureLatency(peer, command),
  }
  say({ event: 'ready' })
  for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line)
    say({ event: 'done', ...(await commands[command.do](command)) })
  }
  await peer.close()
}
