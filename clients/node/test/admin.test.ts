// What an operator does through the client: on the real server, and behind a relay that loses answers.

import assert from "node:assert/strict";
import { test } from "node:test";
import { status } from "@grpc/grpc-js";
import {
  Client,
  DeadlineExceeded,
  FailedPrecondition,
  InvalidArgument,
  JobCancelled,
  NotFound,
  Unavailable,
  Worker,
} from "jobwire";
import { AdminServiceService, CancelStatus, QueuePolicy } from "jobwire/v1";
import { connected, door, freshQueue, relayed, SERVER } from "./serving.js";

const quiet = { debug() {}, info() {}, warn() {}, error() {} };

test("every call of AdminService is there, and none is a stream", (t) => {
  const { admin } = connected(t);
  const names = Object.keys(AdminServiceService);
  assert.ok(names.length >= 25);
  assert.deepEqual(Object.keys(admin).sort(), names.sort());
  for (const { requestStream, responseStream } of Object.values(AdminServiceService)) {
    assert.deepEqual([requestStream, responseStream], [false, false]);
  }
});

test("an operator cancels a running job: its handler is told, and who did it is on record", async (t) => {
  const client = connected(t, SERVER, { actor: "Ada, support" });
  const queue = freshQueue();
  const { open, passed } = door();
  const reasons: unknown[] = [];
  const worker = new Worker(SERVER, { logger: quiet }).handler(queue, {}, async (job) => {
    open();
    await new Promise((resolve) => job.signal.addEventListener("abort", resolve));
    reasons.push(job.signal.reason);
    job.signal.throwIfAborted();
  });
  await worker.start();
  t.after(() => worker.stop({ now: true }));
  const { jobId } = await client.publish(queue, 1);
  await passed;
  const { results } = await client.admin.cancelJobs({ queue, jobIds: [jobId] });
  assert.deepEqual(results, [{ jobId, status: CancelStatus.REQUESTED }]);
  assert.equal((await client.wait(jobId, { queue, timeout: 60 })).state, "cancelled");
  assert.equal(reasons.length, 1);
  assert.ok(reasons[0] instanceof JobCancelled && reasons[0].reason === "requested");
  const again = await client.admin.cancelJobs({ queue, jobIds: [jobId] });
  assert.equal(again.results[0]?.status, CancelStatus.ALREADY_FINISHED);
  const { actions } = await client.admin.listActions({ queue });
  assert.deepEqual(
    actions.filter(({ what }) => what === "job.cancel").map(({ actor }) => actor),
    ["Ada, support", "Ada, support"],
  );
});

test("queues and jobs in the contract's words: spans, points in time, enums", async (t) => {
  const client = connected(t);
  const name = freshQueue();
  const created = await client.admin.createQueue({
    queue: {
      name,
      policy: QueuePolicy.STATELY,
      limits: { rate: { starts: 100, period: { seconds: 60 } } },
      waitingRetention: { seconds: 3600 },
    },
  });
  assert.equal(created.created, true);
  const { queue } = await client.admin.updateQueue({ queue: { name, limits: { maxActive: 2 } } });
  assert.equal(queue?.policy, QueuePolicy.STATELY);
  assert.deepEqual([queue?.limits?.maxActive, queue?.limits?.rate], [2, undefined]);
  assert.deepEqual(queue?.waitingRetention, { seconds: 3600, nanos: 0 });
  assert.ok(queue?.createTime instanceof Date);
  const { jobId } = await client.publish(name, 1);
  const hour = 3_600_000;
  const seen = await client.admin.listJobs({ queue: name, filter: { createdFrom: new Date(Date.now() - hour) } });
  assert.deepEqual(
    seen.jobs.map(({ id }) => id),
    [jobId],
  );
  const later = await client.admin.listJobs({ queue: name, filter: { createdFrom: new Date(Date.now() + hour) } });
  assert.deepEqual(later.jobs, []);
});

test("what the server refuses has reason and advice", async (t) => {
  const { admin } = connected(t);
  const queue = freshQueue();
  await assert.rejects(admin.cancelJobs({ queue, jobIds: [crypto.randomUUID()] }), (error) => {
    assert.ok(error instanceof NotFound);
    assert.equal(error.reason, "QUEUE_NOT_FOUND");
    assert.match(error.message, /does not exist; create it with AdminService.CreateQueue/);
    return true;
  });
  await admin.createQueue({ queue: { name: queue } });
  const everything = {
    queue,
    selection: { $case: "filter", value: {} },
    change: { $case: "retry", value: {} },
  } as const;
  await assert.rejects(admin.changeJobs(everything), (error) => {
    assert.ok(error instanceof FailedPrecondition);
    assert.equal(error.reason, "CONFIRMATION_REQUIRED");
    assert.match(error.message, /make the call with `dry_run` first/);
    return true;
  });
});

test("what no request has, or not so, is refused before anything is sent", async (t) => {
  const { admin } = connected(t, "127.0.0.1:1", { timeout: 0.2 });
  const requests: [() => Promise<unknown>, RegExp][] = [
    [() => admin.cancelJobs({ queue: "q", jobids: ["a"] } as object), /^cancelJobs: no request has jobids/],
    [
      () => admin.putSchedule({ schedule: { job: { retryLimit: 5 } } } as object),
      /no request has schedule\.job\.retryLimit/,
    ],
    [
      () => admin.createQueue({ queue: { waitingRetention: 60 } } as object),
      /queue\.waitingRetention, or not so; a span is/,
    ],
    [
      () => admin.changeJobs({ change: { $case: "retry" } } as object),
      /no request has change, .*a choice \{ \$case, value \}/,
    ],
    [() => admin.createQueue({ queue: { policy: "STATELY" } } as object), /an enum a number of `jobwire\/v1`/],
    [() => admin.listJobs({ filter: { createdFrom: "today" } } as object), /^listJobs: .*a point in time a Date/],
    [() => admin.deleteQueue("q" as never), /^deleteQueue: no request has that/],
  ];
  for (const [made, message] of requests) {
    await assert.rejects(made, (error) => {
      assert.ok(error instanceof InvalidArgument, String(error));
      assert.match(error.message, message);
      return true;
    });
  }
});

test("a call that is safe to repeat is repeated when its answer is lost; any other is made once", async (t) => {
  const relay = await relayed(t);
  const client = connected(t, relay.target);
  const queue = freshQueue();
  const { jobId } = await client.publish(queue, 1);
  const lost = { code: status.UNAVAILABLE, details: "lost" };
  let losses = 1;
  relay.afterAdmin = () => {
    if (losses-- > 0) throw lost;
  };
  const { results } = await client.admin.cancelJobs({ queue, jobIds: [jobId] });
  assert.deepEqual(results, [{ jobId, status: CancelStatus.ALREADY_FINISHED }]);
  assert.deepEqual(relay.adminCalls.splice(0), ["cancelJobs", "cancelJobs"]);
  losses = 1;
  await client.admin.listQueues();
  assert.deepEqual(relay.adminCalls.splice(0), ["listQueues", "listQueues"]);
  losses = 1;
  const retry = { selection: { $case: "filter", value: {} }, change: { $case: "retry", value: {} }, limit: 1 } as const;
  await assert.rejects(client.admin.changeJobs({ queue, ...retry }), Unavailable);
  assert.deepEqual(relay.adminCalls, ["changeJobs"]);
  assert.equal((await client.getJob(jobId, { queue })).state, "created", "it was done, once");
});

test("a timeout that is none is refused, and one of ages is no trouble", async (t) => {
  const client = connected(t, SERVER, { timeout: 1e12 });
  for (const timeout of [Number.NaN, 0, -1, "5", null]) {
    const call = client.admin.listSessions({}, { timeout: timeout as never });
    await assert.rejects(call, { name: "InvalidArgument", message: /^timeout: a number of seconds above 0, not / });
  }
  await client.admin.listSessions({}, { timeout: 1e12 });
  const { jobId } = await client.publish(freshQueue(), 1);
  await client.getJob(jobId);
  await assert.rejects(client.admin.deleteQueue({ name: freshQueue() }), { reason: "QUEUE_NOT_FOUND" });
});

test("a call brings token and actor, and ends with its timeout, its signal or its client", async (t) => {
  const relay = await relayed(t);
  const client = new Client(relay.target, { token: () => "secret", actor: "Ada" });
  t.after(() => client.close());
  await client.admin.listSessions({ pageSize: 1 });
  assert.deepEqual([relay.tokens, relay.actors], [["Bearer secret"], ["Ada"]]);
  relay.beforeAdmin = () => new Promise(() => {});
  await assert.rejects(client.admin.listSessions({}, { timeout: 0.2 }), (error) => {
    assert.ok(error instanceof DeadlineExceeded);
    assert.match(error.message, /may have taken effect, and repeating it is safe$/);
    return true;
  });
  await assert.rejects(client.admin.redriveJobs({}, { timeout: 0.2 }), (error) => {
    assert.ok(error instanceof DeadlineExceeded);
    assert.match(error.message, /may have taken effect, and listActions says whether$/);
    return true;
  });
  const leaving = new AbortController();
  const aborted = client.admin.listSessions({}, { signal: leaving.signal });
  leaving.abort(new Error("the user has left"));
  await assert.rejects(aborted, /the user has left/);
  const waiting = assert.rejects(client.admin.listSessions(), { reason: "CLOSED" });
  await client.close();
  await waiting;
  await assert.rejects(client.admin.listSessions(), { reason: "CLOSED" });
});
