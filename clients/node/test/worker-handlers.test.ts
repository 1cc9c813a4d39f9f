// What becomes of what a handler returns or throws, alone and in batches.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import {
  BatchJob,
  type BatchOptions,
  FailForGood,
  Job,
  JobCancelled,
  ReleaseJob,
  RetryIn,
  type StopReason,
  Worker,
} from "jobwire";
import { type AckItem, CancelReason } from "jobwire/v1";
import { ackItem, completed, type Outcome, settling, thrown } from "#src/outcome.js";
import {
  delivery,
  Held,
  Lines,
  pause,
  type ScriptedServer,
  type Stream,
  scripted,
  until,
  within,
  working,
} from "./scripted.js";

// What is thrown, without a server.

function failed(error: unknown, ...signals: AbortSignal[]) {
  const outcome = thrown(error, ...signals);
  assert.ok(outcome.kind === "failed", `${outcome.kind}`);
  return outcome;
}

class BadFile extends FailForGood {}
class Odd extends TypeError {}

test("an error's class, message and stack are told, and those of its causes", () => {
  const cause = new Odd("the cause", { cause: "a text" });
  const outcome = failed(new RangeError("the error", { cause }));
  assert.deepEqual([outcome.type, outcome.message], ["RangeError", "the error"]);
  assert.match(
    outcome.trace,
    /^RangeError: the error\n.*at .*worker-handlers.*\nCaused by: .*the cause\n.*\nCaused by: a text$/s,
  );
  assert.equal(failed(cause).type, "Odd");
  assert.deepEqual([failed(new BadFile("no")).type, failed(new BadFile("no")).permanent], ["BadFile", true]);
  assert.deepEqual([failed(new RetryIn(7)).retryIn, failed(new RetryIn(7)).permanent], [7, false]);
  assert.deepEqual(thrown(new ReleaseJob(3)), { kind: "released", delay: 3 });
  const named = Object.assign(new Error("by its name"), { name: "DiskFull" });
  assert.equal(failed(named).type, "DiskFull");
});

test("what was thrown with the classes of `require` is known here too", () => {
  const required = createRequire(import.meta.url)("jobwire") as typeof import("jobwire");
  assert.notEqual(required.FailForGood, FailForGood);
  assert.equal(failed(new required.FailForGood("never")).permanent, true);
  assert.equal(failed(new required.RetryIn(7)).retryIn, 7);
  assert.equal(thrown(new required.ReleaseJob()).kind, "released");
});

test("anything may be thrown", () => {
  const circular: Record<string, unknown> = { n: 1n };
  circular.self = circular;
  const hostile = new Proxy(new Error("x"), {
    get() {
      throw new Error("no field of this can be read");
    },
  });
  const cases: [unknown, string, RegExp][] = [
    [undefined, "undefined", /^undefined was thrown$/],
    [null, "null", /^null was thrown$/],
    ["a text", "string", /^a text$/],
    ["", "string", /^an empty string was thrown$/],
    [42n, "bigint", /^42n was thrown$/],
    [Symbol("s"), "symbol", /^Symbol\(s\) was thrown$/],
    [circular, "object", /n: 1n.*Circular.* was thrown$/s],
    [Object.create(null), "object", /was thrown$/],
    [new Error(""), "Error", /^Error$/],
    [Object.assign(new Error(""), { code: "ECONNREFUSED" }), "Error", /^ECONNREFUSED$/],
    [new AggregateError([new Error("one"), new Error("two")]), "AggregateError", /^one; two$/],
    [new AggregateError([new Odd("only")]), "Odd", /^only$/],
    [hostile, "Error", /cannot be shown/],
  ];
  for (const [error, type, message] of cases) {
    const outcome = failed(error);
    assert.equal(outcome.type, type);
    assert.match(outcome.message, message);
    assert.equal(ackItem("h", outcome).outcome?.$case, "fail");
  }
});

test("the errors that an error gathers are told too", async () => {
  const all = await Promise.any([Promise.reject(new Odd("one")), Promise.reject("two")]).catch(
    (error: unknown) => error,
  );
  const { type, message, trace } = failed(new Error("no mirror", { cause: all }));
  assert.deepEqual([type, message], ["Error", "no mirror"]);
  assert.match(
    trace,
    /no mirror\n.*Caused by: AggregateError: .*\nOne of its errors: .*one\n.*One of its errors: two$/s,
  );
});

test("an error that is its own cause is told once", () => {
  const one = new Error("one");
  const other = new Error("other", { cause: one });
  one.cause = other;
  assert.equal(failed(one).trace.match(/Caused by/g)?.length, 1);
});

test("other fields of an error stay where they are: they may hold a token", () => {
  const error = Object.assign(new Error("refused"), { config: { headers: { authorization: "Bearer secret" } } });
  assert.ok(!JSON.stringify(ackItem("h", failed(error))).includes("secret"));
});

test("long texts are cut where the server would, without half a character", () => {
  const error = new Error("é".repeat(5000));
  error.stack = `x${"漢".repeat(9000)}\0`;
  const { outcome } = ackItem("h", failed(error));
  assert.ok(outcome?.$case === "fail");
  assert.equal(outcome.value.message, "é".repeat(2000));
  assert.ok(
    Buffer.byteLength(outcome.value.trace) <= 8 * 1024 && Buffer.byteLength(outcome.value.trace) > 8 * 1024 - 3,
  );
  assert.match(outcome.value.trace, /^x漢+$/);
});

test("what the job's own signal made it throw is the end that was asked for, any other abort is a failure", async () => {
  const own = new AbortController();
  const other = new AbortController();
  const waiting = sleep(1e6, undefined, { signal: own.signal }).catch((error: unknown) => error);
  const mixed = sleep(1e6, undefined, { signal: AbortSignal.any([own.signal, other.signal]) }).catch((e: unknown) => e);
  const others = sleep(1e6, undefined, { signal: other.signal }).catch((error: unknown) => error);
  other.abort(new Error("a timeout of its own"));
  const nameless = Object.assign(new Error("This operation was aborted"), { name: "AbortError" });
  // Before it is told to stop, nothing is.
  assert.equal(failed(nameless, own.signal).type, "AbortError");
  own.abort(new JobCancelled("requested"));
  assert.equal(thrown(await waiting, own.signal).kind, "stopped");
  assert.equal(thrown(own.signal.reason, own.signal).kind, "stopped");
  assert.equal(thrown(new Error("wrapped", { cause: own.signal.reason }), own.signal).kind, "stopped");
  assert.equal(thrown(nameless, own.signal).kind, "stopped");
  assert.equal(failed(await others, own.signal).type, "AbortError");
  assert.equal(failed(await mixed, own.signal).type, "AbortError");
  assert.equal(failed(new Error("something else"), own.signal).message, "something else");
  assert.equal(failed(new JobCancelled("requested")).type, "JobCancelled");
});

test("what a run that was told to stop is reported as", () => {
  const plain = failed(new Error("in the middle"));
  const cases: [Outcome, StopReason | undefined, string][] = [
    [completed(1), "stopping", "completed"],
    [completed(1), "requested", "completed"],
    [{ kind: "stopped" }, "stopping", "released"],
    [{ kind: "stopped" }, "requested", "released"],
    [{ kind: "stopped" }, "expired", "failed"],
    [plain, undefined, "failed"],
    [plain, "requested", "failed"],
    [plain, "expired", "failed"],
    [plain, "stopping", "released"],
    [plain, "silence", "released"],
    [plain, "lease_lost", "released"],
    [failed(new FailForGood("never")), "stopping", "failed"],
    [failed(new RetryIn(5)), "stopping", "failed"],
    [thrown(new ReleaseJob()), "expired", "released"],
  ];
  for (const [outcome, reason, kind] of cases) {
    assert.equal(settling(outcome, reason).kind, kind, `${outcome.kind} ${reason}`);
  }
});

test("a result that JSON cannot carry fails the job for good, since running it again would not help", () => {
  const circular: { self?: unknown } = {};
  circular.self = circular;
  const broken = {
    toJSON() {
      throw new Error("no");
    },
  };
  for (const result of [1n, circular, () => {}, Symbol("s"), broken, "x".repeat(600 * 1024)]) {
    const outcome = completed(result);
    assert.ok(outcome.kind === "failed");
    assert.deepEqual([outcome.type, outcome.permanent], ["BadResult", true]);
    assert.match(outcome.message, /the handler's result cannot be stored/);
  }
  for (const [result, output] of [
    [undefined, ""],
    [null, ""],
    [0, "0"],
    [false, "false"],
    ["", '""'],
  ]) {
    assert.deepEqual(completed(result), { kind: "completed", output });
  }
});

test("a pause is 0 s to 7 days", () => {
  for (const bad of [-1, Number.NaN, 8 * 24 * 3600, Number.POSITIVE_INFINITY, "30" as unknown as number]) {
    assert.throws(() => new RetryIn(bad), RangeError);
    assert.throws(() => new ReleaseJob(bad), RangeError);
  }
});

test("a class of one's own that names nonsense fails its job, and the worker goes on", async (t) => {
  class Later extends RetryIn {
    override readonly seconds = "30" as unknown as number;
  }
  class Busy extends ReleaseJob {
    override readonly delay = Number.NaN;
  }
  class Named extends Error {
    static override name() {
      return "not a text";
    }
  }
  const errors = [new Later(0), new Busy(), new Named("no name")];
  const server = await scripted(t);
  const worker = await working(server, ({ data }) => Promise.reject(errors[data]), { concurrency: 3 });
  const stream = await server.opened();
  stream.deliver(...errors.map((_, n) => delivery(`h-${n}`, n)));
  for (const n of errors.keys()) {
    const end = await server.settled(`h-${n}`);
    assert.ok(end.$case === "fail" && end.value.retryIn === undefined);
    assert.match(end.value.message, n === 2 ? /^no name$/ : /it names no pause/);
    assert.match(end.value.type, n === 2 ? /^Error$/ : /^(Later|Busy)$/);
  }
  assert.equal(worker.stopping, false);
});

test("a job made by hand tries out a handler", async () => {
  const job = new Job({ data: { fileKey: "a.xlsx" } });
  assert.deepEqual([job.attempt, job.checkpoint, job.signal.aborted], [1, null, false]);
  await job.progress(0.5, "half", { checkpoint: 1 });
  await job.extend(60);
  await assert.rejects(job.extend(0.5), /a time limit is 1 s to 7 days/);
  const jobs = [new BatchJob({ data: 1 }), new BatchJob({ data: 2 })] as const;
  jobs[0].complete();
  assert.deepEqual(
    jobs.map(({ settled }) => settled),
    [true, false],
  );
});

// With a server.

test("every end is reported, and none harms the worker", async (t) => {
  const server = await scripted(t);
  const ends: Record<string, (job: Job) => unknown> = {
    nothing: () => undefined,
    sync: () => ({ rows: 3 }),
    undefined: () => Promise.reject(undefined),
    good: () => Promise.reject(new FailForGood("never")),
    later: () => Promise.reject(new RetryIn(7, "not yet")),
    back: () => Promise.reject(new ReleaseJob(2)),
    bigint: async () => 1n,
    text: () => Promise.reject(new RetryIn("7" as never)),
  };
  await working(server, (job: Job) => ends[job.data as string]?.(job), { concurrency: 20 });
  const stream = await server.opened();
  stream.deliver(...Object.keys(ends).map((end) => delivery(end, end)), delivery("no-json", null, { data: "{" }));
  const said: Record<string, unknown> = {};
  for (const end of [...Object.keys(ends), "no-json"]) {
    const { $case, value } = await server.settled(end);
    const { trace: _, ...rest } = value as { trace?: string };
    said[end] = { $case, ...rest };
  }
  const fail = { $case: "fail", permanent: false, retryIn: undefined };
  const seconds = (n: number) => ({ seconds: n, nanos: 0 });
  assert.deepEqual(said.nothing, { $case: "complete", output: "" });
  assert.deepEqual(said.sync, { $case: "complete", output: '{"rows":3}' });
  assert.deepEqual(said.undefined, { ...fail, type: "undefined", message: "undefined was thrown" });
  assert.deepEqual(said.good, { ...fail, type: "FailForGood", message: "never", permanent: true });
  assert.deepEqual(said.later, { ...fail, type: "RetryIn", message: "not yet", retryIn: seconds(7) });
  assert.deepEqual(said.back, { $case: "release", delay: seconds(2) });
  assert.equal((said.bigint as { type: string }).type, "BadResult");
  assert.equal((said["no-json"] as { type: string }).type, "SyntaxError");
  assert.equal((said.text as { type: string }).type, "RangeError");
});

test("a cancelled job tells its handler why, and ends as it says", async (t) => {
  const server = await scripted(t);
  const held = new Held();
  await working(server, held.handle, { concurrency: 4 });
  const stream = await server.opened();
  const cases = [
    [CancelReason.REQUESTED, "requested", "release"],
    [CancelReason.EXPIRED, "expired", "fail"],
    [CancelReason.LEASE_LOST, "lease_lost", "release"],
    [77 as CancelReason, "requested", "release"],
  ] as const;
  for (const [reason, told, end] of cases) {
    const handle = `h-${reason}`;
    stream.deliver(delivery(handle));
    await held.started(handle);
    stream.cancel(handle, reason);
    assert.equal(await server.end(handle), end);
    assert.equal(held.stopped.get(`job-of-${handle}`), told);
  }
});

test("a handler that ends well although it was told to stop has completed", async (t) => {
  const server = await scripted(t);
  await working(server, async (job: Job) => {
    await until("it is told", () => job.signal.aborted);
    return "all the same";
  });
  const stream = await server.opened();
  stream.deliver(delivery("h-1"));
  stream.cancel("h-1");
  assert.deepEqual(await server.settled("h-1"), { $case: "complete", value: { output: '"all the same"' } });
});

test("a signal that is looked at late is aborted all the same", async (t) => {
  const server = await scripted(t);
  let seen: unknown;
  await working(server, async (job: Job) => {
    await pause(0.3);
    seen = job.signal.reason;
    job.signal.throwIfAborted();
  });
  const stream = await server.opened();
  stream.deliver(delivery("h-1"));
  stream.cancel("h-1");
  assert.equal(await server.end("h-1"), "release");
  assert.ok(seen instanceof JobCancelled && seen.reason === "requested");
});

test("a logger gets the line alone where there are no fields", async (t) => {
  const server = await scripted(t);
  const said: unknown[][] = [];
  const keep = (...args: unknown[]) => said.push(args);
  await working(server, () => Promise.reject(new Error("no")), {
    logger: { debug: keep, info: keep, warn: keep, error: keep },
  });
  (await server.opened()).deliver(delivery("h-1"));
  await server.settled("h-1");
  const lengths = (start: string) =>
    said.filter(([line]) => String(line).startsWith(start)).map(({ length }) => length);
  assert.deepEqual([lengths("queue q: opened"), lengths("job job-of-h-1: failed")], [[1], [2]]);
});

test("a logger that throws harms nobody", async (t) => {
  const server = await scripted(t);
  const broken = () => {
    throw new Error("the disk is full");
  };
  const logger = { debug: broken, info: broken, warn: broken, error: broken };
  const worker = await working(server, () => Promise.reject(new Error("no")), { logger });
  (await server.opened()).deliver(delivery("h-1"));
  assert.equal(await server.end("h-1"), "fail");
  await within("its end", worker.stop());
});

test("what is said after the end is said to nobody", async (t) => {
  const server = await scripted(t);
  let late: Job | undefined;
  await working(server, (job: Job) => {
    late = job;
  });
  (await server.opened()).deliver(delivery("h-1"));
  await server.settled("h-1");
  await until("the job is kept", () => late !== undefined);
  await late?.progress(0.5, "late", { checkpoint: 1 });
  await within("an extension of what has ended", late?.extend(60) ?? Promise.resolve());
  await pause(0.5);
  assert.deepEqual(server.withItems, [["h-1"]]);
});

// Batches.

async function batches(
  server: ScriptedServer,
  handle: (jobs: BatchJob[], signal: AbortSignal) => Promise<void> | void,
  options: Partial<BatchOptions> = {},
): Promise<{ stream: Stream; worker: Worker }> {
  const worker = new Worker(server.address, { logger: new Lines() });
  worker.batchHandler("q", { size: 3, wait: 60, ...options }, handle);
  server.workers.push(worker);
  await worker.start();
  return { stream: await server.opened(), worker };
}

function byPlan(jobs: BatchJob[]): void {
  for (const job of jobs) {
    if (job.data === "complete") job.complete([jobs.length]);
    else if (job.data === "fail") job.fail(new TypeError("not this one"));
    else if (job.data === "never") job.fail(new FailForGood("never"));
    else if (job.data === "release") job.release(2);
    else if (job.data === "bad") job.complete(1n);
  }
}

test("each job of a batch is settled on its own", async (t) => {
  const server = await scripted(t);
  const { stream } = await batches(server, byPlan, { size: 6, concurrency: 7 });
  stream.deliver(...["complete", "fail", "never", "release", "bad", "nothing"].map((plan) => delivery(plan, plan)));
  const said: Record<string, NonNullable<AckItem["outcome"]>> = {};
  for (const plan of ["complete", "fail", "never", "release", "bad", "nothing"])
    said[plan] = await server.settled(plan);
  assert.deepEqual(said.complete, { $case: "complete", value: { output: "[6]" } });
  assert.deepEqual(said.nothing, { $case: "complete", value: { output: "" } });
  assert.deepEqual(said.release, { $case: "release", value: { delay: { seconds: 2, nanos: 0 } } });
  const types = ["fail", "never", "bad"].map((plan) => (said[plan]?.value as { type?: string } | undefined)?.type);
  assert.deepEqual(types, ["TypeError", "FailForGood", "BadResult"]);
});

test("the rest of a batch shares the end of the handler, and the first word on a job counts", async (t) => {
  const server = await scripted(t);
  const { stream } = await batches(server, ([first]) => {
    first?.complete("done");
    first?.fail(new Error("too late"));
    throw new RetryIn(5, "the rest");
  });
  stream.deliver(...["h-1", "h-2", "h-3"].map((handle) => delivery(handle)));
  assert.deepEqual(await server.settled("h-1"), { $case: "complete", value: { output: '"done"' } });
  for (const handle of ["h-2", "h-3"]) {
    const end = await server.settled(handle);
    assert.ok(end.$case === "fail" && end.value.message === "the rest");
  }
});

test("a handler of batches that fails when all its jobs are settled is not passed over in silence", async (t) => {
  const server = await scripted(t);
  const logger = new Lines();
  const worker = new Worker(server.address, { logger });
  worker.batchHandler("q", { size: 1 }, (jobs) => {
    for (const job of jobs) job.complete();
    throw new Error("the commit failed");
  });
  server.workers.push(worker);
  await worker.start();
  (await server.opened()).deliver(delivery("h-1"));
  assert.equal(await server.end("h-1"), "complete");
  const told = "jobs were settled: Error: the commit failed";
  await until("it is told", () => logger.warnings.some((line) => line.endsWith(told)));
});

test("a handler of batches that returns something is told so", async (t) => {
  const server = await scripted(t);
  const { stream } = await batches(server, (async () => [1]) as never, { size: 1 });
  stream.deliver(delivery("h-1"));
  const end = await server.settled("h-1");
  assert.ok(end.$case === "fail" && end.value.permanent);
  assert.match(end.value.message, /settles each job by itself, and returns nothing/);
});

test("a batch does not wait for ever, and not when it is full", async (t) => {
  const server = await scripted(t);
  const sizes: number[] = [];
  const handle = (jobs: BatchJob[]) => {
    sizes.push(jobs.length);
  };
  const { stream } = await batches(server, handle, { wait: 0.05, concurrency: 10 });
  stream.deliver(...Array.from({ length: 5 }, (_, n) => delivery(`h-${n}`)));
  for (let n = 0; n < 5; n += 1) await server.settled(`h-${n}`);
  assert.deepEqual(sizes, [3, 2]);
});

test("a job that is cancelled while a batch gathers is left out", async (t) => {
  const server = await scripted(t);
  const sizes: number[] = [];
  const { stream } = await batches(server, (jobs) => {
    sizes.push(jobs.length);
  });
  stream.deliver(delivery("h-1"), delivery("h-2"));
  stream.cancel("h-1");
  assert.equal(await server.end("h-1"), "release");
  stream.deliver(delivery("h-3"), delivery("h-4"));
  for (const handle of ["h-2", "h-3", "h-4"]) assert.equal(await server.end(handle), "complete");
  assert.deepEqual(sizes, [3]);
});

test("one of a batch is cancelled and never completed, the others are", async (t) => {
  const server = await scripted(t);
  const signals: boolean[] = [];
  const { stream } = await batches(server, async (jobs, signal) => {
    await jobs[0]?.progress(0.5);
    await until("it is told", () => jobs[0]?.signal.aborted ?? false);
    signals.push(signal.aborted, ...jobs.map((job) => job.signal.aborted));
  });
  stream.deliver(...["h-1", "h-2", "h-3"].map((handle) => delivery(handle)));
  await server.ack(({ items }) => items.some(({ handle }) => handle === "h-1"));
  stream.cancel("h-1");
  assert.equal(await server.end("h-1"), "release");
  for (const handle of ["h-2", "h-3"]) assert.equal(await server.end(handle), "complete");
  assert.deepEqual(signals, [false, true, false, false]);
});

test("a job whose neighbour's stop escaped the handler is given back, and has not failed", async (t) => {
  const server = await scripted(t);
  const { stream } = await batches(server, async (jobs) => {
    await jobs[0]?.progress(0.5);
    await sleep(1e6, undefined, { signal: jobs[0]?.signal });
  });
  stream.deliver(...["h-1", "h-2", "h-3"].map((handle) => delivery(handle)));
  await server.ack(({ items }) => items.some(({ handle }) => handle === "h-1"));
  stream.cancel("h-1", CancelReason.EXPIRED);
  assert.equal(await server.end("h-1"), "fail");
  for (const handle of ["h-2", "h-3"]) assert.equal(await server.end(handle), "release");
});

test("the handler's own signal is aborted when all that is left to it is to stop", async (t) => {
  const server = await scripted(t);
  let reason: unknown;
  const { stream } = await batches(server, async (jobs, signal) => {
    jobs[0]?.complete();
    await sleep(1e6, undefined, { signal }).catch((error) => {
      reason = signal.reason;
      throw error;
    });
  });
  stream.deliver(...["h-1", "h-2", "h-3"].map((handle) => delivery(handle)));
  assert.equal(await server.end("h-1"), "complete");
  stream.cancel("h-2");
  stream.cancel("h-3", CancelReason.EXPIRED);
  assert.equal(await server.end("h-2"), "release");
  const end = await server.settled("h-3");
  assert.ok(end.$case === "fail" && end.value.type === "EXPIRED");
  assert.ok(reason instanceof JobCancelled);
});

test("when the worker stops, all of a batch that is not settled is given back, with its checkpoints", async (t) => {
  const server = await scripted(t);
  const { stream, worker } = await batches(server, async (jobs, signal) => {
    for (const job of jobs) await job.progress(0.5, "", { checkpoint: job.id });
    await sleep(1e6, undefined, { signal });
  });
  stream.deliver(...["h-1", "h-2", "h-3"].map((handle) => delivery(handle)));
  await server.ack(({ items }) => items.some(({ handle }) => handle === "h-3"));
  await within("its end", worker.stop({ now: true }));
  for (const handle of ["h-1", "h-2", "h-3"]) {
    assert.equal(await server.end(handle), "release");
    const said = server.acks.flatMap(({ items }) => items).find((item) => item.handle === handle)?.outcome;
    assert.ok(said?.$case === "extend" && said.value.progress?.checkpoint === `"job-of-${handle}"`);
  }
});

test("a handler that has settled everything is told when the worker stops, and does not hold it up for long", async (t) => {
  const server = await scripted(t);
  let told = false;
  const { stream, worker } = await batches(server, async (jobs, signal) => {
    for (const job of jobs) job.complete();
    signal.addEventListener("abort", () => {
      told = true;
    });
    await new Promise(() => {});
  });
  stream.deliver(...["h-1", "h-2", "h-3"].map((handle) => delivery(handle)));
  await server.settled("h-3");
  await within("its end", worker.stop(), 10);
  assert.ok(told);
});
