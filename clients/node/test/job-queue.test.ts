// The adapter: what a module reads and writes that knew pg-boss.

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { ServerCredentials } from "@grpc/grpc-js";
import { InvalidArgument, NotFound, newJobId, RetryIn, Unavailable } from "jobwire";
import {
  createJobQueue,
  type JobQueue,
  type ProcessOptions,
  type PushOptions,
  type QueuedJob,
  type ScheduleOptions,
} from "jobwire/job-queue";
import { MissedRuns } from "jobwire/v1";
import { until } from "./scripted.js";
import { connected, door, freshQueue, relayed, SERVER } from "./serving.js";

const quiet = { debug() {}, info() {}, warn() {}, error() {} };

function queueFor(t: TestContext): JobQueue {
  const jobQueue = createJobQueue({ target: SERVER, handleSignals: false, logger: quiet, timeout: 30 });
  t.after(() => jobQueue.stop({ now: true }));
  return jobQueue;
}

async function finished(jobQueue: JobQueue, id: string | null): Promise<QueuedJob> {
  for (const end = performance.now() + 60_000; performance.now() < end; ) {
    const job = await jobQueue.getJob(id ?? "");
    if (job?.completedOn) return job;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`job ${id} did not finish`);
}

test("a job is pushed, processed and looked at, in pg-boss's words", async (t) => {
  const jobQueue = queueFor(t);
  const name = freshQueue();
  const { open, passed } = door();
  const seen: unknown[] = [];
  await jobQueue.process<{ fileKey: string }>(
    name,
    { teamSize: 2, newJobCheckInterval: 500 } as ProcessOptions,
    async (job) => {
      seen.push([job.id, job.name, job.data, job.retryCount, job.signal.aborted]);
      await job.progress(0.25, "a quarter");
      await passed;
      return { rows: 3 };
    },
  );
  const id = await jobQueue.push(name, { fileKey: "a.xlsx" }, { priority: 5, singletonKey: "a", expireInSeconds: 60 });
  assert.match(id ?? "", /^[0-9a-f-]{36}$/);
  for (let job = await jobQueue.getJob(id ?? ""); job?.progress == null; job = await jobQueue.getJob(id ?? "")) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const active = await jobQueue.getJob(id ?? "", { name });
  assert.equal(active?.state, "active");
  assert.deepEqual(active?.progress, { fraction: 0.25, note: "a quarter" });
  open();
  const { createdOn, startedOn, completedOn, startAfter, ...job } = await finished(jobQueue, id);
  assert.deepEqual(job, {
    id,
    name,
    data: { fileKey: "a.xlsx" },
    state: "completed",
    output: { rows: 3 },
    progress: { fraction: 0.25, note: "a quarter" },
    priority: 5,
    retryCount: 0,
    retryLimit: 2,
    singletonKey: "a",
  });
  for (const moment of [createdOn, startedOn, completedOn, startAfter]) assert.ok(moment instanceof Date);
  assert.deepEqual(seen, [[id, name, { fileKey: "a.xlsx" }, 0, false]]);
});

test("a handler that throws fails its job; its error is the output", async (t) => {
  const jobQueue = queueFor(t);
  const name = freshQueue();
  await jobQueue.process<number>(name, (job) => {
    if (job.retryCount === 0) throw new RetryIn(0);
    throw new TypeError("not a number");
  });
  const job = await finished(jobQueue, await jobQueue.push(name, 1, { retryLimit: 1 }));
  assert.equal(job.state, "failed");
  assert.equal(job.retryCount, 1);
  const output = job.output as { name: string; message: string; stack: string };
  assert.equal(output.name, "TypeError");
  assert.equal(output.message, "not a number");
  assert.match(output.stack, /job-queue\.test/);
});

test("what a key keeps away has no id; the same job again has", async (t) => {
  const jobQueue = queueFor(t);
  const name = freshQueue();
  const year = 365 * 86_400;
  assert.notEqual(await jobQueue.push(name, 1, { singletonKey: "k", singletonSeconds: year }), null);
  assert.equal(await jobQueue.push(name, 1, { singletonKey: "k", singletonSeconds: year }), null);
  const next = { singletonKey: "k", singletonSeconds: year, singletonNextSlot: true };
  assert.notEqual(await jobQueue.push(name, 1, next), null);
  assert.equal(await jobQueue.push(name, 1, next), null);
  const id = newJobId();
  assert.equal(await jobQueue.push(name, 1, { id }), id);
  assert.equal(await jobQueue.push(name, 1, { id }), id);
  assert.equal(await jobQueue.push(name, 2, { id }), null);
});

test("a start may be a number of seconds, an ISO text or a Date", async (t) => {
  const jobQueue = queueFor(t);
  const name = freshQueue();
  const moment = new Date(Date.now() + 7_200_000);
  for (const startAfter of [moment, moment.toISOString(), 7_200, "7200"]) {
    const job = await jobQueue.getJob((await jobQueue.push(name, 1, { startAfter })) ?? "");
    assert.ok(Math.abs((job?.startAfter.getTime() ?? 0) - moment.getTime()) < 60_000);
    assert.equal(job?.state, "created");
  }
});

test("options without a counterpart are refused with what to do instead", async (t) => {
  const jobQueue = queueFor(t);
  const pushes: [object, RegExp][] = [
    [{ retentionSeconds: 5 }, /no option retentionSeconds: how long a job may wait is said of its queue/],
    [{ expireInMinutes: 5 }, /no option expireInMinutes: say expireInSeconds/],
    [{ db: {} }, /no option db: .*SQL function jobwire.publish/],
    [{ options: { retryLimit: 5 } }, /no option options: say its words themselves/],
    [{ expireIn: 5, expireInSeconds: 5 }, /expireIn and expireInSeconds mean the same/],
    [{ retrylimit: 5 }, /a job has no "retrylimit"/],
    [{ startAfter: "tomorrow" }, /startAfter: "tomorrow" is no point in time/],
    [{ retentionDays: 5 }, /no option retentionDays: how long a job may wait is said of its queue/],
    [{ singletonMinutes: 5 }, /no option singletonMinutes: say singletonSeconds/],
    [{ useSingletonQueue: true }, /no option useSingletonQueue: .*policy `short`/],
    [{ singletonKey: "a", singletonNextSlot: true }, /give singletonSeconds/],
  ];
  for (const [options, message] of pushes) {
    await assert.rejects(jobQueue.push("q", 1, options as PushOptions), (error) => {
      assert.ok(error instanceof InvalidArgument);
      assert.match(error.message, message);
      return true;
    });
  }
  await assert.rejects(
    jobQueue.process("q", { batchSize: 5 } as ProcessOptions, () => {}),
    /one job; for several at once/,
  );
  await assert.rejects(
    jobQueue.process("q", { concurency: 5 } as ProcessOptions, () => {}),
    /no option concurency/,
  );
  await assert.rejects(Reflect.apply(jobQueue.process, jobQueue, ["q"]), /the handler is a function, not undefined/);
});

test("there is no job of an id that is not known, or is none", async (t) => {
  const jobQueue = queueFor(t);
  assert.equal(await jobQueue.getJob(newJobId()), null);
  assert.equal(await jobQueue.getJob("7"), null);
  await assert.rejects(jobQueue.getJob("q", newJobId() as never), /the id comes first/);
  const nowhere = createJobQueue({ target: "127.0.0.1:1", timeout: 0.2 });
  await assert.rejects(nowhere.getJob(newJobId()), Unavailable);
  await nowhere.stop();
});

test("a job is cancelled by its id, with or without its queue; a running one's handler is told", async (t) => {
  const jobQueue = queueFor(t);
  const name = freshQueue();
  const waiting = [];
  for (const data of [1, 2, 3]) waiting.push((await jobQueue.push(name, data, { priority: -1 })) ?? "");
  assert.equal(await jobQueue.getQueueSize(name), 3);
  assert.equal(await jobQueue.cancel(waiting[0] as string), 1);
  assert.equal((await jobQueue.getJob(waiting[0] as string))?.state, "cancelled");
  assert.equal(await jobQueue.cancel(name, waiting), 2);
  assert.equal(await jobQueue.cancel(name, [...waiting, newJobId()]), 0);
  assert.equal(await jobQueue.getQueueSize(name), 0);

  const { open, passed } = door();
  await jobQueue.process(name, async ({ signal }) => {
    open();
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
    signal.throwIfAborted();
  });
  const id = await jobQueue.push(name, 4);
  await passed;
  assert.equal(await jobQueue.cancel(name, id ?? ""), 1);
  assert.equal((await finished(jobQueue, id)).state, "cancelled");

  assert.equal(await jobQueue.cancel(newJobId()), 0);
  assert.equal(await jobQueue.cancel("7"), 0);
  await assert.rejects(jobQueue.cancel(freshQueue(), newJobId()), NotFound);
  assert.equal(await jobQueue.getQueueSize(freshQueue()), 0);
  const cancel = jobQueue.cancel as (...all: unknown[]) => Promise<number>;
  await assert.rejects(cancel.call(jobQueue, name, newJobId(), { db: {} }), /no options of a cancellation: /);
  await assert.rejects(
    jobQueue.getQueueSize(name, { before: "completed" } as never),
    /no options of a size: .*getQueue/,
  );
});

test("a cron line pushes jobs until it is unscheduled; several of a queue have keys", async (t) => {
  const jobQueue = queueFor(t);
  const { admin } = connected(t);
  const name = freshQueue();
  await jobQueue.schedule(name, "* * * * * *", { region: "all" }, { singletonKey: "k", retryLimit: 7 });
  const { open, passed } = door();
  const seen: unknown[] = [];
  await jobQueue.process(name, (job) => {
    seen.push(job.data, job.retryLimit);
    open();
  });
  await passed;
  assert.deepEqual(seen.slice(0, 2), [{ region: "all" }, 7]);

  const options: ScheduleOptions = { key: "eu", tz: "Europe/Berlin", missed: "once", priority: 5, expireInSeconds: 60 };
  await jobQueue.schedule(name, "0 3 * * *", null, options);
  await jobQueue.schedule(name, "30 3 * * *", null, options); // replaces it
  const { schedules } = await admin.listSchedules({ queue: name });
  assert.deepEqual(
    schedules.map((schedule) => schedule.name),
    [name, `${name}:eu`],
  );
  assert.equal(schedules[0]?.job?.key, "k");
  const [, { job, missed, timing } = assert.fail()] = schedules;
  assert.deepEqual(timing, { $case: "cron", value: { line: "30 3 * * *", timeZone: "Europe/Berlin" } });
  assert.deepEqual(
    [missed, job?.priority, job?.options?.expireIn?.seconds, job?.data],
    [MissedRuns.ONCE, 5, 60, "null"],
  );

  await jobQueue.unschedule(name);
  await jobQueue.unschedule(name);
  const left = await admin.listSchedules({ queue: name });
  assert.deepEqual(
    left.schedules.map((schedule) => schedule.name),
    [`${name}:eu`],
  );
});

test("what a schedule cannot say is refused with what to do instead", async (t) => {
  const jobQueue = queueFor(t);
  const schedules: [unknown, object, RegExp][] = [
    ["0 3 * * *", { id: newJobId() }, /no option id: each of its jobs has an id of its own/],
    ["0 3 * * *", { startAfter: 5 }, /no option startAfter: the cron line says when/],
    ["0 3 * * *", { db: {} }, /no option db: .*not in a transaction of yours/],
    ["0 3 * * *", { retentionSeconds: 5 }, /no option retentionSeconds: how long a job may wait/],
    ["0 3 * * *", { missed: "some" }, /missed: one of skip, once, all, not some/],
    ["0 3 * * *", { timezone: "UTC" }, /a job has no "timezone"/],
    [{ kind: "rrule", expression: "" }, {}, /cron: a line .*Client\.admin\.putSchedule/],
    ["often", {}, /cron/],
    ["0 3 * * *", { tz: "Atlantis" }, /time.zone/],
  ];
  for (const [cron, options, message] of schedules) {
    await assert.rejects(jobQueue.schedule(freshQueue(), cron as string, 1, options), (error) => {
      assert.ok(error instanceof InvalidArgument, String(error));
      assert.match(error.message, message);
      return true;
    });
  }
});

test("after a stop nothing is taken any more; what ran has ended", async () => {
  const jobQueue = createJobQueue({ target: SERVER, handleSignals: false, logger: quiet });
  const name = freshQueue();
  let ended = false;
  const { open, passed } = door();
  await jobQueue.process(name, async () => {
    open();
    await new Promise((resolve) => setTimeout(resolve, 300));
    ended = true;
  });
  const id = await jobQueue.push(name, 1);
  await passed;
  await Promise.all([jobQueue.stop(), jobQueue.stop()]);
  assert.equal(ended, true);
  await assert.rejects(jobQueue.push(name, 1), /was stopped: make a new one with createJobQueue/);
  await assert.rejects(
    jobQueue.process(name, () => {}),
    /was stopped/,
  );
  const other = createJobQueue({ target: SERVER });
  assert.equal((await other.getJob(id ?? ""))?.state, "completed");
  await other.stop();
});

/** A program on the adapter with its settings in the environment, and what it has said. */
function program(
  t: TestContext,
  source: string,
  env: NodeJS.ProcessEnv = {},
): { child: ChildProcess; said: () => string } {
  const child = spawn(process.execPath, ["--input-type=module", "--eval", source], {
    env: { ...process.env, JOBWIRE_SERVER: SERVER, ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => child.kill("SIGKILL"));
  let said = "";
  child.stdout?.on("data", (chunk) => {
    said += chunk;
  });
  return { child, said: () => said };
}

const WORKING = (name: string) => `
  import { jobQueue } from "jobwire/job-queue";
  await jobQueue.process(${JSON.stringify(name)}, async () => {
    console.log("started");
    await new Promise((resolve) => setTimeout(resolve, 500));
    console.log("ended");
  });
  await jobQueue.push(${JSON.stringify(name)}, 1);
  // As a web server would, it stays when nothing is to do.
  setInterval(() => {}, 1000);
`;

test("SIGTERM lets a handler finish, and ends a process that nobody else looks after", async (t) => {
  const { child, said } = program(t, WORKING(freshQueue()));
  await until("the handler runs", () => said().includes("started"));
  child.kill("SIGTERM");
  const [code] = await once(child, "exit");
  assert.equal(code, 0);
  assert.match(said(), /ended/);
});

test("a process that listens for SIGTERM itself decides about its end", async (t) => {
  const own = `
    process.on("SIGTERM", async () => {
      await jobQueue.stop();
      console.log("mine");
      process.exit(7);
    });
  `;
  const { child, said } = program(t, WORKING(freshQueue()) + own);
  await until("the handler runs", () => said().includes("started"));
  child.kill("SIGTERM");
  const [code] = await once(child, "exit");
  assert.equal(code, 7);
  assert.match(said(), /ended\nmine/);
});

test("the environment names the server, the authorities and the token", async (t) => {
  const source = `
    import { jobQueue } from "jobwire/job-queue";
    try {
      await jobQueue.push("q", 1);
    } catch (error) {
      console.log(error.message);
    }
  `;
  const cases: [NodeJS.ProcessEnv, RegExp][] = [
    [{ JOBWIRE_CA_FILE: "/nowhere/ca.pem" }, /^JOBWIRE_CA_FILE: ENOENT/],
    [{ JOBWIRE_TOKEN: "a\nb" }, /^token: /],
    [{ JOBWIRE_SERVER: "https://jobwire" }, /^target: .*https:\/\/jobwire/],
  ];
  for (const [env, message] of cases) {
    const { child, said } = program(t, source, env);
    await once(child, "close");
    assert.match(said(), message);
  }
});

/** A folder with a server's key.pem and cert.pem for localhost, and the ca.pem of who signed it. */
const CERTIFICATES = process.env.TEST_CERTIFICATES ?? "";

test("it speaks TLS as the environment says", {
  skip: CERTIFICATES === "" && "TEST_CERTIFICATES names no folder",
}, async (t) => {
  const pem = (name: string) => readFileSync(join(CERTIFICATES, name));
  const pair = { private_key: pem("key.pem"), cert_chain: pem("cert.pem") };
  const relay = await relayed(t, ServerCredentials.createSsl(null, [pair]));
  const source = `
    import { jobQueue } from "jobwire/job-queue";
    console.log(await jobQueue.push(${JSON.stringify(freshQueue())}, 1));
    await jobQueue.stop();
  `;
  const env = { JOBWIRE_SERVER: relay.target, JOBWIRE_CA_FILE: join(CERTIFICATES, "ca.pem"), JOBWIRE_TOKEN: "secret" };
  const { child, said } = program(t, source, env);
  await once(child, "close");
  assert.match(said(), /^[0-9a-f-]{36}\n$/);
  assert.deepEqual(relay.tokens, ["Bearer secret"]);
});
