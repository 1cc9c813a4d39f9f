// Publishing: what is stored, what goes out together, and what each publisher is told.

import assert from "node:assert/strict";
import { test } from "node:test";
import { credentials, status } from "@grpc/grpc-js";
import {
  DeadlineExceeded,
  FailedPrecondition,
  InvalidArgument,
  JobwireError,
  type NewJob,
  NotFound,
  newJobId,
  Overloaded,
  type PublishOptions,
  QueueFull,
  Unavailable,
} from "jobwire";
import { AdminServiceClient, CreateQueueRequest } from "jobwire/v1";
import { Refusal, until } from "./scripted.js";
import { connected, door, freshQueue, relayed, SERVER } from "./serving.js";

test("a job is stored with all that is said of it", async (t) => {
  const client = connected(t);
  const queue = freshQueue();
  const id = newJobId();
  const startAfter = new Date(Date.now() + 3_600_000);
  const published = await client.publish(
    queue,
    { fileKey: "ä.xlsx", rows: [1, 2.5, null] },
    {
      id,
      priority: -7,
      startAfter,
      headers: { traceparent: "00-1" },
      options: {
        retryLimit: 5,
        retryDelay: 2.5,
        retryBackoff: false,
        retryDelayMax: 60,
        expireIn: 30,
        retention: 86_400,
      },
      key: "order-1",
      group: { id: "acme", tier: "gold" },
    },
  );
  assert.deepEqual(published, { jobId: id, created: true, reason: "", metJobId: "", dataDiffers: false });
  const job = await client.getJob(id, { queue });
  assert.deepEqual(job.data, { fileKey: "ä.xlsx", rows: [1, 2.5, null] });
  assert.equal(job.state, "created");
  assert.equal(job.finished, false);
  assert.equal(job.priority, -7);
  assert.equal(job.startAfter.getTime(), startAfter.getTime());
  assert.deepEqual(job.headers, { traceparent: "00-1" });
  assert.equal(job.options.retryLimit, 5);
  assert.equal(job.options.retryDelay, 2.5);
  assert.equal(job.options.retryBackoff, false);
  assert.equal(job.options.retryDelayMax, 60);
  assert.equal(job.options.expireIn, 30);
  assert.equal(job.options.retention, 86_400);
  assert.equal(job.key, "order-1");
  assert.deepEqual(job.group, { id: "acme", tier: "gold" });
  assert.equal(job.output, null);
  assert.equal(job.startTime, null);
});

test("a pause and a time to start from are both kept to", async (t) => {
  const client = connected(t);
  const { jobId } = await client.publish(freshQueue(), 1, { startIn: 600, group: "acme" });
  const job = await client.getJob(jobId);
  assert.equal(Math.round((job.startAfter.getTime() - job.createTime.getTime()) / 1000), 600);
  assert.deepEqual(job.group, { id: "acme", tier: "" });
});

test("what is published while a call is under way goes out in the next one", async (t) => {
  const relay = await relayed(t);
  const client = connected(t, relay.target);
  const { open, passed } = door();
  relay.before = () => passed;
  const queue = freshQueue();
  const first = client.publish(queue, 0);
  await until("the first call is under way", () => relay.publishes.length === 1);
  const others = Array.from({ length: 300 }, (_, n) => client.publish(queue, n + 1));
  open();
  const published = await Promise.all([first, ...others]);
  assert.deepEqual(
    relay.publishes.map(({ jobs }) => jobs.length),
    [1, 300],
  );
  assert.ok(published.every(({ created }) => created));
  const last = await client.getJob(published[300]?.jobId ?? "");
  assert.equal(last.data, 300);
});

test("what is published in one breath shares calls of at most a thousand jobs and 3 MiB", async (t) => {
  const relay = await relayed(t);
  const client = connected(t, relay.target);
  const queue = freshQueue();
  await Promise.all(Array.from({ length: 2_500 }, (_, n) => client.publish(queue, n)));
  assert.deepEqual(
    relay.publishes.map(({ jobs }) => jobs.length),
    [1_000, 1_000, 500],
  );
  const large = "x".repeat(60_000);
  await Promise.all(Array.from({ length: 60 }, () => client.publish(queue, large)));
  assert.deepEqual(
    relay.publishes.slice(3).map(({ jobs }) => jobs.length),
    [52, 8],
  );
});

test("jobs of different queues do not wait for each other", async (t) => {
  const relay = await relayed(t);
  const client = connected(t, relay.target);
  const { open, passed } = door();
  const held = freshQueue();
  relay.before = ({ queue }) => (queue === held ? passed : undefined);
  const slow = client.publish(held, 1);
  await client.publish(freshQueue(), 1);
  open();
  await slow;
});

test("a bad job among others fails alone", async (t) => {
  const client = connected(t);
  const queue = freshQueue();
  const settled = await Promise.allSettled(
    Array.from({ length: 40 }, (_, n) => client.publish(queue, n === 23 ? "x".repeat(70_000) : n)),
  );
  const [bad, ...more] = settled.filter((one) => one.status === "rejected");
  assert.equal(more.length, 0);
  const error = bad?.reason;
  assert.ok(error instanceof InvalidArgument, String(error));
  assert.equal(error.code, "INVALID_ARGUMENT");
  assert.equal(error.reason, "DATA_TOO_LARGE");
  assert.equal(error.fieldViolations[0]?.field, "jobs[0].data");
  assert.match(error.message, /70,002 bytes.*store the content elsewhere/);
  assert.equal(settled[23]?.status, "rejected");
});

test("publishing the same id again stores nothing, and says whether the data differs", async (t) => {
  const client = connected(t);
  const queue = freshQueue();
  const id = newJobId();
  await client.publish(queue, { n: 1 }, { id });
  const again = await client.publish(queue, { n: 1 }, { id });
  assert.deepEqual(again, { jobId: id, created: false, reason: "duplicate_id", metJobId: id, dataDiffers: false });
  assert.equal((await client.publish(queue, { n: 2 }, { id })).dataDiffers, true);
});

test("a call whose answer was lost is repeated, and the job is stored once", async (t) => {
  const relay = await relayed(t);
  const client = connected(t, relay.target);
  let losses = 2;
  relay.after = () => {
    if (losses-- > 0) throw new Refusal(status.UNAVAILABLE, { text: "Connection dropped" });
  };
  const queue = freshQueue();
  const { jobId, created, reason } = await client.publish(queue, 1);
  assert.equal(created, false);
  assert.equal(reason, "duplicate_id");
  assert.equal((await client.getJob(jobId, { queue })).state, "created");
  assert.equal(new Set(relay.publishes.map(({ jobs }) => jobs[0]?.id)).size, 1);
  assert.equal(relay.publishes.length, 3);
});

test("keys, throttling and the like are told apart", async (t) => {
  const client = connected(t);
  const queue = freshQueue();
  const first = await client.publish(queue, 1, { key: "a", uniqueFor: 60 });
  const second = await client.publish(queue, 1, { key: "a", uniqueFor: 60 });
  assert.deepEqual(second, {
    jobId: first.jobId,
    created: false,
    reason: "not_unique",
    metJobId: first.jobId,
    dataDiffers: false,
  });
  await client.publish(queue, 1, { key: "b", throttle: 86_400 * 365 });
  assert.equal((await client.publish(queue, 1, { key: "b", throttle: 86_400 * 365 })).reason, "throttled");
});

test("what cannot travel is refused with what to do, before anything is sent", async (t) => {
  const relay = await relayed(t);
  const client = connected(t, relay.target);
  const circle: { self?: unknown } = {};
  circle.self = circle;
  let deep: unknown[] = [];
  for (let level = 0; level < 100_000; level++) deep = [deep];
  const cases: [unknown, PublishOptions, RegExp][] = [
    ["x".repeat(600_000), {}, /600002 bytes of JSON, but at most 524288.*send its key/],
    [1n, {}, /not JSON: .*BigInt/],
    [circle, {}, /not JSON: .*circular.*no value that contains itself/],
    [deep, {}, /nested too deeply; at most 64 levels/],
    [() => 1, {}, /not JSON: a function/],
    [Promise.resolve(1), {}, /not JSON: a promise; await it first/],
    [{ toJSON() {} }, {}, /not JSON: an object whose toJSON returns nothing/],
    [1, { priority: 1.5 }, /priority is a whole number, not 1.5/],
    [1, { startIn: Number.NaN }, /NaN is no span of time: give a number of seconds/],
    [1, { startAfter: new Date("soon") }, /Invalid Date is no point in time: give a Date/],
    [1, { startIn: 1, startAfter: new Date() }, /startAfter and startIn exclude each other/],
    [1, { throttle: 1, uniqueFor: 1 }, /throttle and debounce and uniqueFor exclude each other/],
    [1, { headers: { n: 1 as unknown as string } }, /headers are strings, not "n": 1/],
    [1, { headers: null as never }, /headers is an object, not null/],
    [1, { headers: "traceparent" as never }, /headers is an object, not string/],
    [1, { options: 5 as never }, /options is an object, not number/],
    [1, { group: null as never }, /group is an object, not null/],
    [1, { key: 5 as unknown as string }, /key is a text, not number/],
    [1, { retryLimit: 5 } as PublishOptions, /a job has no "retryLimit": say options: { retryLimit }/],
    [1, { options: { expireInSeconds: 5 } } as PublishOptions, /options has no "expireInSeconds"/],
  ];
  for (const [data, options, message] of cases) {
    await assert.rejects(client.publish("q", data, options), (error) => {
      assert.ok(error instanceof InvalidArgument);
      assert.match(error.message, message);
      return true;
    });
  }
  await assert.rejects(client.publish(undefined as unknown as string, 1), /its name is a text, not undefined/);
  await assert.rejects(client.publishMany("q", [{ data: 1 }, { data: 1n }]), InvalidArgument);
  await assert.rejects(client.publishMany("q", [5 as never]), /a job is an object, not number/);
  await assert.rejects(client.publishMany("q", [null as never]), /a job is an object, not null/);
  assert.equal(relay.publishes.length, 0);
});

test("neither a job that broke off half way nor a large one leaves anything in the next", async (t) => {
  const client = connected(t);
  const queue = freshQueue();
  const large = "ä".repeat(32_000);
  await assert.rejects(client.publish(queue, large, { priority: 2 ** 40 }), InvalidArgument);
  for (const data of ["first", large, "last"]) {
    const { jobId } = await client.publish(queue, data);
    assert.equal((await client.getJob(jobId, { queue })).data, data);
  }
});

test("what the server refuses names the field and the rule", async (t) => {
  const client = connected(t);
  const cases: [string, unknown, PublishOptions, string, RegExp][] = [
    ["no queue!", 1, {}, "queue", /1 to 63 letters/],
    ["q", "\0", {}, "jobs[0].data", /u0000/],
    ["q", "\ud800", {}, "jobs[0].data", /surrogate/],
    ["q", 1, { id: "seven" }, "jobs[0].id", /UUID/],
    ["q", 1, { priority: 99_999 }, "jobs[0].priority", /-32,768 to 32,767/],
    ["q", 1, { options: { expireIn: 0.1 } }, "jobs[0].options.expire_in", /1 s/],
  ];
  for (const [queue, data, options, field, message] of cases) {
    await assert.rejects(client.publish(queue, data, options), (error) => {
      assert.ok(error instanceof InvalidArgument);
      assert.equal(error.reason, "INVALID_ARGUMENT");
      assert.equal(error.fieldViolations[0]?.field, field);
      assert.match(error.message, message);
      return true;
    });
  }
});

test("aborting ends the waiting; what is on its way is not taken back, what is not is never sent", async (t) => {
  const relay = await relayed(t);
  const client = connected(t, relay.target);
  const { open, passed } = door();
  relay.before = () => passed;
  const queue = freshQueue();
  const onItsWay = new AbortController();
  const id = newJobId();
  const first = client.publish(queue, 1, { id, signal: onItsWay.signal });
  await until("the first call is under way", () => relay.publishes.length === 1);
  const waiting = new AbortController();
  const second = client.publish(queue, 2, { signal: waiting.signal });
  const third = client.publish(queue, 3);
  const why = new Error("changed my mind");
  onItsWay.abort(why);
  waiting.abort(why);
  await assert.rejects(first, why);
  await assert.rejects(second, why);
  await assert.rejects(client.publish(queue, 4, { signal: AbortSignal.abort(why) }), why);
  open();
  await third;
  assert.equal((await client.getJob(id, { queue })).data, 1);
  assert.deepEqual(
    relay.publishes.map(({ jobs }) => jobs.map(({ data }) => data)),
    [["1"], ["3"]],
  );
});

test("one signal may stand for any number of calls", async (t) => {
  const client = connected(t);
  const warnings: Error[] = [];
  const warned = (warning: Error) => warnings.push(warning);
  process.on("warning", warned);
  t.after(() => process.off("warning", warned));
  const { signal } = new AbortController();
  const queue = freshQueue();
  await Promise.all(Array.from({ length: 50 }, (_, n) => client.publish(queue, n, { signal })));
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(warnings, []);
});

test("a publisher that does not wait for answers is held up when 64 MiB wait", async (t) => {
  const relay = await relayed(t);
  const client = connected(t, relay.target);
  const { open, passed } = door();
  relay.before = async () => {
    await passed;
    throw new Refusal(status.NOT_FOUND, { reason: "QUEUE_NOT_FOUND" });
  };
  const queue = freshQueue();
  const data = "x".repeat(500_000);
  const published = Array.from({ length: 150 }, () => client.publish(queue, data));
  const settled = Promise.allSettled(published);
  await assert.rejects(client.publish(queue, data), (error) => {
    assert.ok(error instanceof Overloaded);
    assert.equal(error.code, "RESOURCE_EXHAUSTED");
    assert.match(error.message, /await what publish returns/);
    return true;
  });
  open();
  const kinds = (await settled).map((one) => (one.status === "rejected" ? one.reason.constructor : undefined));
  assert.equal(kinds.filter((kind) => kind === NotFound).length, 134);
  assert.equal(kinds.filter((kind) => kind === Overloaded).length, 16);
  relay.before = () => {};
  // What was answered makes room again: it is the server that refuses now.
  await assert.rejects(client.publish(queue, data), InvalidArgument);
});

test("a list is split into calls, and says how far it is", async (t) => {
  const relay = await relayed(t);
  const client = connected(t, relay.target);
  const queue = freshQueue();
  const steps: [number, number][] = [];
  const jobs: NewJob[] = Array.from({ length: 2_500 }, (_, n) => ({ data: { n }, priority: n % 3 }));
  const published = await client.publishMany(queue, jobs, { onProgress: (done, total) => steps.push([done, total]) });
  assert.deepEqual(steps, [
    [1_000, 2_500],
    [2_000, 2_500],
    [2_500, 2_500],
  ]);
  assert.equal(published.length, 2_500);
  assert.deepEqual((await client.getJob(published[1_777]?.jobId ?? "")).data, { n: 1_777 });
  await client.publishMany(
    queue,
    Array.from({ length: 60 }, () => ({ data: "x".repeat(60_000) })),
  );
  assert.deepEqual(
    relay.publishes.map(({ jobs }) => jobs.length),
    [1_000, 1_000, 500, 52, 8],
  );
  assert.deepEqual(await client.publishMany(queue, []), []);
  await assert.rejects(client.publishMany(queue, jobs, { signal: AbortSignal.abort(new Error("no")) }), /^Error: no$/);
});

test("a queue that is full is asked until the time is up, and the error says so", async (t) => {
  const admin = new AdminServiceClient(SERVER, credentials.createInsecure());
  t.after(() => admin.close());
  const queue = freshQueue();
  await new Promise<void>((resolve, reject) =>
    admin.createQueue(CreateQueueRequest.fromPartial({ queue: { name: queue, maxDepth: 2 } }), (error) =>
      error ? reject(error) : resolve(),
    ),
  );
  const client = connected(t, SERVER, { timeout: 2 });
  await client.publishMany(queue, [{ data: 1 }, { data: 2 }]);
  await assert.rejects(client.publish(queue, 3), (error) => {
    assert.ok(error instanceof QueueFull);
    assert.equal(error.reason, "QUEUE_FULL");
    return true;
  });
});

test("each publisher has its own time, and is told what the last call failed with", async (t) => {
  const relay = await relayed(t);
  const client = connected(t, relay.target, { timeout: 1 });
  relay.before = () => {
    throw new Refusal(status.UNAVAILABLE, { reason: "DRAINING", text: "this replica is going away", retryAfter: 0.1 });
  };
  await assert.rejects(client.publish(freshQueue(), 1), (error) => {
    assert.ok(error instanceof Unavailable);
    assert.equal(error.reason, "DRAINING");
    assert.equal(error.message, "this replica is going away");
    assert.equal(error.retryAfter, 0.1);
    return true;
  });
  assert.ok(relay.publishes.length > 1);
  relay.before = () => new Promise(() => {});
  await assert.rejects(client.publish(freshQueue(), 1), (error) => {
    assert.ok(error instanceof DeadlineExceeded);
    assert.match(error.message, /within 1 s; the job may be stored/);
    return true;
  });
});

test("a failure that no repetition helps is not repeated, and harms nobody's later job", async (t) => {
  const relay = await relayed(t);
  const client = connected(t, relay.target);
  relay.before = () => {
    throw new Refusal(status.UNAUTHENTICATED, { reason: "UNAUTHENTICATED", text: "no token" });
  };
  await assert.rejects(client.publish("q", 1), (error) => {
    assert.ok(error instanceof JobwireError);
    assert.equal(error.name, "Unauthenticated");
    return true;
  });
  assert.equal(relay.publishes.length, 1);
  relay.before = () => {};
  assert.equal((await client.publish(freshQueue(), 1)).created, true);
});

test("closing lets publishes arrive, and takes no more", async (t) => {
  const relay = await relayed(t);
  const client = connected(t, relay.target);
  const queue = freshQueue();
  const published = Promise.all(Array.from({ length: 1_500 }, (_, n) => client.publish(queue, n)));
  await client.close();
  assert.equal((await published).filter(({ created }) => created).length, 1_500);
  await client.close();
  await assert.rejects(client.publish("q", 1), (error) => {
    assert.ok(error instanceof FailedPrecondition);
    assert.equal(error.reason, "CLOSED");
    assert.match(error.message, /was closed by this program: make a new one/);
    return true;
  });
});
