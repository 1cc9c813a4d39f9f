// A worker and the real server: the ordinary flows from publishing to the recorded end.

import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { credentials } from "@grpc/grpc-js";
import { type Handler, type HandlerOptions, type Job, ReleaseJob, RetryIn, Worker, type WorkerOptions } from "jobwire";
import { AdminServiceClient, CancelJobsRequest } from "jobwire/v1";
import { Held, Lines, until, within } from "./scripted.js";
import { connected, freshQueue, SERVER } from "./serving.js";

/** A started worker, a client and a queue of their own. */
async function started(
  t: TestContext,
  // biome-ignore lint/suspicious/noExplicitAny: any handler
  handle: Handler<any, any>,
  { concurrency = 4, ...options }: WorkerOptions & HandlerOptions = {},
) {
  const queue = freshQueue();
  const worker = new Worker(SERVER, { name: "node tester", logger: new Lines(), ...options });
  worker.handler(queue, { concurrency }, handle);
  const client = connected(t);
  await worker.start();
  t.after(() => worker.stop({ now: true }));
  const finished = (jobId: string) => client.wait(jobId, { queue, timeout: 60 });
  return { queue, worker, client, finished };
}

interface Numbers {
  numbers: number[];
}

test("jobs with typed payloads are run and their outputs stored", async (t) => {
  const handle = (job: Job<Numbers>) => ({
    sum: job.data.numbers.reduce((sum, number) => sum + number, 0),
    by: job.id,
  });
  const { queue, client, finished } = await started(t, handle);
  const published = await client.publishMany(
    queue,
    Array.from({ length: 50 }, (_, n) => ({ data: { numbers: [n, n, 1] }, headers: { n: `${n}` } })),
  );
  for (const [n, { jobId }] of published.entries()) {
    const job = await finished(jobId);
    assert.deepEqual([job.state, job.output, job.worker], ["completed", { sum: 2 * n + 1, by: jobId }, "node tester"]);
  }
});

test("progress is shown, and a checkpoint comes back with the next attempt", async (t) => {
  let go = false;
  const { queue, client, finished } = await started(t, async (job: Job) => {
    if (job.attempt > 1) return { from: job.checkpoint, retries: job.retryCount };
    await job.progress(0.25, "a quarter");
    await until("it may go on", () => go);
    await job.progress(0.5, "half", { checkpoint: { row: 500 } });
    throw new RetryIn(0, "again");
  });
  const { jobId } = await client.publish(queue, null);
  let shown = await client.getJob(jobId, { queue });
  while (shown.progress === null) shown = await client.getJob(jobId, { queue });
  assert.deepEqual(shown.progress, { fraction: 0.25, note: "a quarter" });
  go = true;
  const job = await finished(jobId);
  assert.deepEqual([job.output, job.attempt], [{ from: { row: 500 }, retries: 1 }, 2]);
  assert.deepEqual([job.errors[0]?.type, job.errors[0]?.message], ["RetryIn", "again"]);
});

test("a job that is given back uses up no retry; one that fails does, until none is left", async (t) => {
  const { queue, client, finished } = await started(t, (job: Job) => {
    if (job.attempt === 1) throw new ReleaseJob(0);
    throw new Error(`attempt ${job.attempt}`);
  });
  const { jobId } = await client.publish(queue, null, { options: { retryLimit: 1, retryDelay: 0 } });
  const job = await finished(jobId);
  assert.deepEqual([job.state, job.attempt, job.retryCount, job.releaseCount], ["failed", 3, 1, 1]);
  assert.deepEqual(
    job.errors.map(({ message }) => message),
    ["attempt 2", "attempt 3"],
  );
});

test("a cancelled job stops its handler", async (t) => {
  const held = new Held();
  const { queue, client, finished } = await started(t, held.handle);
  const { jobId } = await client.publish(queue, null);
  await until("it runs", () => held.runs.has(jobId));
  const admin = new AdminServiceClient(SERVER, credentials.createInsecure());
  t.after(() => admin.close());
  const request = CancelJobsRequest.fromPartial({ queue, jobIds: [jobId] });
  await new Promise<void>((resolve, reject) =>
    admin.cancelJobs(request, (error) => (error === null ? resolve() : reject(error))),
  );
  const job = await finished(jobId);
  assert.deepEqual([job.state, held.stopped.get(jobId)], ["cancelled", "requested"]);
});

test("a run that takes too long is stopped, one that extends its limit is not", async (t) => {
  const { queue, client, finished } = await started(t, async (job: Job) => {
    if (job.data === "extend") await job.extend(600);
    if (job.data === "extend") return new Promise((resolve) => setTimeout(resolve, 3000, "in time"));
    return new Promise((_, reject) => job.signal.addEventListener("abort", () => reject(job.signal.reason)));
  });
  const options = { expireIn: 1, retryLimit: 0 };
  const [expired, extended] = await client.publishMany(queue, [
    { data: "expire", options },
    { data: "extend", options },
  ]);
  const job = await finished(expired?.jobId ?? "");
  assert.deepEqual([job.state, job.errors[0]?.type], ["failed", "EXPIRED"]);
  assert.equal((await finished(extended?.jobId ?? "")).output, "in time");
});

test("a batch is settled job by job", async (t) => {
  const queue = freshQueue();
  const sizes: number[] = [];
  const worker = new Worker(SERVER, { logger: new Lines() });
  worker.batchHandler<number, string>(queue, { size: 100, wait: 1 }, (jobs) => {
    sizes.push(jobs.length);
    for (const job of jobs) {
      if (job.data % 3 === 0) job.complete(`even ${job.data}`);
      else if (job.data % 3 === 1) job.fail(new RetryIn(3600, "odd"));
    }
  });
  const client = connected(t);
  const published = await client.publishMany(
    queue,
    Array.from({ length: 90 }, (_, n) => ({ data: n })),
  );
  await worker.start();
  t.after(() => worker.stop({ now: true }));
  for (const [n, { jobId }] of published.entries()) {
    if (n % 3 === 1) continue;
    const job = await client.wait(jobId, { queue, timeout: 60 });
    assert.deepEqual([job.state, job.output], ["completed", n % 3 === 0 ? `even ${n}` : null]);
  }
  await within("its end", worker.stop());
  assert.equal((await client.getJob(published[1]?.jobId ?? "", { queue })).state, "retry");
  assert.ok(Math.max(...sizes) > 1, `${sizes}`);
});

test("a worker that stops finishes what runs, and leaves the rest to others at once", async (t) => {
  const held = new Held();
  const { queue, client, worker, finished } = await started(t, held.handle, { concurrency: 2 });
  const published = await client.publishMany(queue, [{ data: 1 }, { data: 2 }, { data: 3 }]);
  const [first, second, third] = published.map(({ jobId }) => jobId) as [string, string, string];
  await until("two run", () => held.runs.size === 2);
  const leaving = worker.stop();
  for (const jobId of [first, second]) held.end(jobId);
  await within("its end", leaving);
  assert.deepEqual([(await finished(first)).output, (await finished(second)).output], ["done", "done"]);
  assert.equal((await client.getJob(third, { queue })).state, "created");
  assert.equal(held.stopped.size, 0);
});

test("a worker that stops at once gives its jobs back, and another one has them", async (t) => {
  const held = new Held();
  const { queue, client, worker, finished } = await started(t, held.handle);
  const { jobId } = await client.publish(queue, null);
  await until("it runs", () => held.runs.has(jobId));
  await within("its end", worker.stop({ now: true }));
  const other = new Worker(SERVER, { logger: new Lines() }).handler(queue, (job) => job.attempt);
  await other.start();
  t.after(() => other.stop({ now: true }));
  const job = await finished(jobId);
  assert.deepEqual([job.output, job.retryCount, job.releaseCount, job.lossCount], [2, 0, 1, 0]);
});
