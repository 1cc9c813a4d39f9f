// Waiting for a job: what is seen on the way, and what ends the waiting.

import assert from "node:assert/strict";
import { test } from "node:test";
import { status } from "@grpc/grpc-js";
import { DeadlineExceeded, FailedPrecondition, FailForGood, type JobInfo, NotFound, newJobId, Worker } from "jobwire";
import { Refusal, until } from "./scripted.js";
import { connected, door, freshQueue, relayed, SERVER } from "./serving.js";

/** Well before a look ends by itself, which it does after 30 s; in milliseconds. */
const EARLY = 20_000;

test("a job is seen through: its progress, its output, its end", async (t) => {
  const client = connected(t);
  const queue = freshQueue();
  const { open, passed } = door();
  const worker = new Worker(SERVER).handler<{ n: number }>(queue, async (job) => {
    await job.progress(0.5, "half way", { checkpoint: { row: 3 } });
    await passed;
    return { twice: job.data.n * 2 };
  });
  await worker.start();
  t.after(() => worker.stop());
  const { jobId } = await client.publish(queue, { n: 21 });
  const seen: JobInfo<{ n: number }, { twice: number }>[] = [];
  const job = await client.wait<{ n: number }, { twice: number }>(jobId, {
    queue,
    timeout: 60,
    onChange: (change) => {
      seen.push(change);
      if (change.progress !== null) open();
    },
  });
  assert.equal(job.state, "completed");
  assert.equal(job.finished, true);
  assert.deepEqual(job.output, { twice: 42 });
  assert.deepEqual(job.data, { n: 21 });
  assert.deepEqual(job.checkpoint, { row: 3 });
  assert.ok(job.startTime instanceof Date && job.finishTime instanceof Date);
  const half = seen.find(({ progress }) => progress !== null);
  assert.deepEqual(half?.progress, { fraction: 0.5, note: "half way" });
  assert.equal(half?.state, "active");
  assert.equal(seen.at(-1)?.state, "completed");
  assert.equal(new Set(seen.map(({ revision }) => revision)).size, seen.length);
  // What is over is returned at once, also to who does not say the queue.
  assert.equal((await client.wait(jobId)).state, "completed");
});

test("a job that failed says with what", async (t) => {
  const client = connected(t);
  const queue = freshQueue();
  const worker = new Worker(SERVER, { name: "tester", logger: quiet }).handler(queue, () => {
    throw new FailForGood("not a workbook");
  });
  await worker.start();
  t.after(() => worker.stop());
  const { jobId } = await client.publish(queue, null);
  const job = await client.wait(jobId, { queue, timeout: 60 });
  assert.equal(job.state, "failed");
  assert.equal(job.output, null);
  assert.equal(job.errors.length, 1);
  assert.equal(job.errors[0]?.type, "FailForGood");
  assert.equal(job.errors[0]?.message, "not a workbook");
  assert.equal(job.errors[0]?.worker, "tester");
  assert.equal(job.errors[0]?.attempt, 1);
});

test("waiting ends after its timeout, and says how the job stands", async (t) => {
  const client = connected(t);
  const { jobId } = await client.publish(freshQueue(), 1);
  await assert.rejects(client.wait(jobId, { timeout: 1.5 }), (error) => {
    assert.ok(error instanceof DeadlineExceeded);
    assert.equal(error.message, `job ${jobId} did not finish within 1.5 s, it was created when last seen`);
    return true;
  });
});

test("a timeout that is no number is not waited for", async (t) => {
  const client = connected(t);
  for (const timeout of ["5", Number.NaN, null]) {
    const waiting = client.wait("01890a5d-ac96-774b-bcce-b302099a8057", { timeout: timeout as never });
    await assert.rejects(waiting, { name: "InvalidArgument", message: /^timeout: a number of seconds, not / });
  }
});

test("waiting ends with its signal", async (t) => {
  const client = connected(t);
  const { jobId } = await client.publish(freshQueue(), 1);
  const why = new Error("the request was closed");
  const controller = new AbortController();
  const waiting = client.wait(jobId, { signal: controller.signal, onChange: () => controller.abort(why) });
  await assert.rejects(waiting, why);
  await assert.rejects(client.wait(jobId, { signal: AbortSignal.abort(why) }), why);
  await assert.rejects(client.getJob(jobId, { signal: AbortSignal.abort(why) }), why);
});

test("waiting goes on over a connection that fails", async (t) => {
  const relay = await relayed(t);
  const client = connected(t, relay.target);
  const queue = freshQueue();
  const worker = new Worker(SERVER).handler(queue, () => "done");
  const { jobId } = await client.publish(queue, 1);
  let polls = 0;
  relay.beforeGet = () => {
    polls += 1;
    if (polls === 2) throw new Refusal(status.UNAVAILABLE, { text: "Connection dropped" });
    if (polls === 3) throw new Refusal(status.CANCELLED, { text: "Cancelled on the server side" });
    if (polls === 4) void worker.start();
  };
  const job = await client.wait(jobId, { queue, timeout: 60 });
  t.after(() => worker.stop());
  assert.equal(job.output, "done");
  assert.ok(polls >= 4);
});

test("what changes between two looks is not missed", async (t) => {
  const relay = await relayed(t);
  const client = connected(t, relay.target);
  const direct = connected(t);
  const queue = freshQueue();
  const { open, passed } = door();
  const worker = new Worker(SERVER).handler(queue, async (job) => {
    await job.progress(0.5);
    await passed;
  });
  t.after(() => worker.stop());
  const { jobId } = await client.publish(queue, 1);
  const asked: string[] = [];
  relay.beforeGet = async (request) => {
    asked.push(request.queue);
    if (asked.length !== 2) return;
    await worker.start();
    while ((await direct.getJob(jobId)).progress === null) await new Promise((resolve) => setTimeout(resolve, 20));
  };
  const begun = performance.now();
  await client.wait(jobId, { onChange: ({ progress }) => progress && open() });
  assert.ok(performance.now() - begun < EARLY);
  // Only as long as it is not known where the job is, all queues are searched.
  assert.deepEqual([asked[0], ...new Set(asked.slice(1))], ["", queue]);
});

test("closing the client ends the waiting", async (t) => {
  const relay = await relayed(t);
  const client = connected(t, relay.target);
  const { jobId } = await client.publish(freshQueue(), 1);
  let polls = 0;
  relay.beforeGet = () => {
    polls += 1;
  };
  const waiting = client.wait(jobId);
  await until("the long poll is under way", () => polls === 2);
  const begun = performance.now();
  await client[Symbol.asyncDispose]();
  await assert.rejects(waiting, (error) => {
    assert.ok(error instanceof FailedPrecondition);
    assert.equal(error.reason, "CLOSED");
    return true;
  });
  assert.ok(performance.now() - begun < EARLY);
  await assert.rejects(client.getJob(jobId), FailedPrecondition);
});

test("there is no such job", async (t) => {
  const client = connected(t);
  for (const ask of [() => client.getJob(newJobId()), () => client.wait(newJobId())]) {
    await assert.rejects(ask, (error) => {
      assert.ok(error instanceof NotFound);
      assert.equal(error.reason, "JOB_NOT_FOUND");
      return true;
    });
  }
});

const quiet = { debug() {}, info() {}, warn() {}, error() {} };
