// The worker's half of the session protocol, edge by edge: docs/protocol.md, "the life of a worker".

import assert from "node:assert/strict";
import { test } from "node:test";
import { status } from "@grpc/grpc-js";
import { InvalidArgument, type Job, Worker } from "jobwire";
import { AckResponse, type SubscribeResponse } from "jobwire/v1";
import {
  allApplied,
  cut,
  delivery,
  Held,
  Lines,
  pause,
  Refusal,
  scripted,
  until,
  within,
  working,
} from "./scripted.js";

const lost = () => new Refusal(status.NOT_FOUND, { reason: "SESSION_LOST" });
const takenOver = () => new Refusal(status.ABORTED, { reason: "SESSION_TAKEN_OVER" });

test("a job is delivered, run and settled", async (t) => {
  const server = await scripted(t);
  const seen: Job[] = [];
  const handle = (job: Job) => {
    seen.push(job);
    return { straße: [1, 2.5, null] };
  };
  await working(server, handle, { concurrency: 7 });
  const stream = await server.stream();
  assert.deepEqual(stream.request.queues, ["q"]);
  assert.equal(stream.request.maxInFlight, 7);
  assert.equal(stream.request.worker, "tester");
  assert.equal(stream.request.resume, undefined);
  stream.open();
  const fields = { headers: { traceparent: "00-1" }, attempt: 3, priority: -4, checkpoint: '{"page":7}' };
  const sequence = stream.deliver(delivery("h-1", { n: 1 }, fields));
  assert.deepEqual(await server.settled("h-1"), { $case: "complete", value: { output: '{"straße":[1,2.5,null]}' } });
  const ack = await server.ack(({ items }) => items.length > 0);
  assert.deepEqual([ack.sessionId, ack.lastSequence], ["s-1", sequence]);
  const [job] = seen as [Job];
  assert.deepEqual([job.id, job.queue, job.data], ["job-of-h-1", "q", { n: 1 }]);
  assert.deepEqual([job.attempt, job.priority, job.retryCount, job.retryLimit, job.expireIn], [3, -4, 0, 2, 900]);
  assert.deepEqual([job.headers, job.checkpoint, job.origin], [{ traceparent: "00-1" }, { page: 7 }, null]);
  assert.equal(job.createTime.toISOString(), "2026-01-02T00:00:00.000Z");
});

test("a broken stream is resumed, and the handler goes on", async (t) => {
  const server = await scripted(t);
  const held = new Held();
  await working(server, held.handle, { concurrency: 2 });
  const first = await server.opened();
  first.deliver(delivery("h-1"), delivery("h-2"));
  await held.started("h-1", "h-2");
  held.release("h-2");
  await server.settled("h-2");
  first.end(cut());
  const second = await server.stream();
  assert.deepEqual(second.request.resume, { sessionId: "s-1", epoch: 2, held: ["h-1"] });
  second.open();
  held.release("h-1");
  assert.equal(await server.end("h-1"), "complete");
  assert.deepEqual([...held.runs.values()], [1, 1]);
  assert.equal(held.stopped.size, 0);
});

test("what is delivered twice runs once, and what is too much goes back", async (t) => {
  const server = await scripted(t);
  const held = new Held();
  await working(server, held.handle, { concurrency: 2 });
  const stream = await server.opened();
  stream.deliver(delivery("h-1"), delivery("h-1"), delivery("h-2"), delivery("h-3"));
  assert.equal(await server.end("h-3"), "release");
  stream.deliver(delivery("h-2"));
  for (const handle of ["h-1", "h-2"]) {
    held.release(handle);
    assert.equal(await server.end(handle), "complete");
  }
  assert.deepEqual([...held.runs.values()], [1, 1]);
});

test("each attempt to resume carries a higher epoch", async (t) => {
  const server = await scripted(t);
  await working(server, new Held().handle);
  (await server.opened()).end(cut());
  for (const epoch of [2, 3, 4]) {
    const stream = await server.stream();
    assert.equal(stream.request.resume?.epoch, epoch);
    stream.end(cut());
  }
  (await server.opened()).end();
  assert.equal((await server.stream()).request.resume?.epoch, 6);
});

test("a silent stream is left before the next is made", async (t) => {
  const server = await scripted(t);
  await working(server, new Held().handle);
  const first = await server.opened("s-1", { heartbeat: 0.05, grace: 0.15 });
  const second = await server.stream();
  await until("the first is left", () => first.left);
  assert.equal(second.request.resume?.epoch, 2);
  assert.ok(server.noStream);
});

test("an event that this client does not know is a sign of life", async (t) => {
  const server = await scripted(t);
  const held = new Held();
  await working(server, held.handle);
  const stream = await server.opened("s-1", { heartbeat: 0.2, grace: 0.6 });
  stream.deliver(delivery("h-1"));
  await held.started("h-1");
  for (let n = 0; n < 20; n += 1) {
    stream.send(undefined as SubscribeResponse["event"]);
    await pause(0.05);
  }
  held.release("h-1");
  const { lastSequence } = await server.ack(({ items }) => items.length > 0);
  assert.ok(lastSequence > 2, `it names what came last, not ${lastSequence}`);
  assert.equal(held.stopped.size, 0);
});

test("what the resume lists as lost is dropped", async (t) => {
  const server = await scripted(t);
  const held = new Held();
  await working(server, held.handle, { concurrency: 2 });
  const first = await server.opened();
  first.deliver(delivery("h-1"), delivery("h-2"));
  await held.started("h-1", "h-2");
  first.end(cut());
  const second = await server.stream();
  assert.deepEqual(second.request.resume?.held, ["h-1", "h-2"]);
  second.open("s-1", { lost: ["h-1"] });
  await until("it is told", () => held.stopped.size > 0);
  held.release("h-2");
  await server.settled("h-2");
  second.end(cut());
  assert.deepEqual((await server.stream()).request.resume?.held, []);
  assert.deepEqual([...held.stopped], [["job-of-h-1", "lease_lost"]]);
  assert.ok(!server.withItems.flat().includes("h-1"));
});

for (const [how, refusal] of [
  ["lost", lost],
  ["taken over", takenOver],
] as const) {
  test(`a session that is ${how} at the resume is replaced`, async (t) => {
    const server = await scripted(t);
    const held = new Held();
    await working(server, held.handle);
    const first = await server.opened();
    first.deliver(delivery("h-1"));
    await held.started("h-1");
    first.end(cut());
    (await server.stream()).end(refusal());
    const fresh = await server.stream();
    assert.equal(fresh.request.resume, undefined);
    assert.deepEqual([...held.stopped], [["job-of-h-1", "lease_lost"]]);
    fresh.open("s-2");
    fresh.deliver(delivery("h-2"));
    await held.started("h-2");
    fresh.end(cut());
    assert.deepEqual((await server.stream()).request.resume, { sessionId: "s-2", epoch: 2, held: ["h-2"] });
    assert.ok(!server.withItems.flat().includes("h-1"));
  });
}

test("a takeover ends the stream and its handlers", async (t) => {
  const server = await scripted(t);
  const held = new Held();
  await working(server, held.handle);
  const first = await server.opened();
  first.deliver(delivery("h-1"));
  await held.started("h-1");
  first.end(takenOver());
  assert.equal((await server.stream()).request.resume, undefined);
  assert.deepEqual([...held.stopped.values()], ["lease_lost"]);
});

test("an Ack tells that the session is over", async (t) => {
  const server = await scripted(t);
  const held = new Held();
  await working(server, held.handle);
  const first = await server.opened("s-1");
  first.deliver(delivery("h-1"));
  await held.started("h-1");
  server.answerAck = ({ sessionId }) => AckResponse.fromPartial({ sessionAlive: sessionId !== "s-1" });
  first.heartbeat();
  const fresh = await server.opened("s-2");
  assert.equal(fresh.request.resume, undefined);
  assert.deepEqual([...held.stopped.values()], ["lease_lost"]);
  await until("the first is left", () => first.left);
});

test("a drain is followed by a resume within its own grace", async (t) => {
  const server = await scripted(t);
  const held = new Held();
  await working(server, held.handle);
  const first = await server.opened("s-1", { heartbeat: 0.05, grace: 0.15 });
  first.deliver(delivery("h-1"));
  await held.started("h-1");
  first.drain();
  for (let n = 0; n < 4; n += 1) {
    // Together these attempts take longer than the grace that held before the drain.
    (await server.stream()).end(new Refusal(status.UNAVAILABLE, { reason: "DRAINING", retryAfter: 0.05 }));
  }
  const last = await server.opened();
  assert.deepEqual(last.request.resume?.held, ["h-1"]);
  held.release("h-1");
  assert.equal(await server.end("h-1"), "complete");
  assert.equal(held.stopped.size, 0);
});

test("silence stops handlers, and gives their jobs back", async (t) => {
  const server = await scripted(t);
  const held = new Held();
  await working(server, held.handle);
  const first = await server.opened("s-1", { heartbeat: 0.05, grace: 0.15 });
  first.deliver(delivery("h-1"));
  await held.started("h-1");
  server.stop(); // no Ack is answered either
  await until("it is told", () => held.stopped.size > 0);
  assert.deepEqual([...held.stopped.values()], ["silence"]);
  await server.start();
  await server.opened();
  assert.equal(await server.end("h-1"), "release");
});

test("a loop that stood still is not taken for a silent server", async (t) => {
  const server = await scripted(t);
  const logger = new Lines();
  let beat = () => {};
  const handle = async (job: Job) => {
    await until("a heartbeat was answered", () => server.acks.some(({ items }) => items.length === 0));
    // What is written now is read after the pause, by which time the server seems to have been silent for long.
    beat();
    const end = performance.now() + 3000;
    while (performance.now() < end);
    await pause(1);
    return job.signal.aborted;
  };
  await working(server, handle, { logger, heartbeatInterval: 1 });
  const stream = await server.opened("s-1", { heartbeat: 1, grace: 3 });
  beat = () => stream.heartbeat();
  stream.deliver(delivery("h-1"));
  stream.heartbeat();
  assert.deepEqual(await server.settled("h-1"), { $case: "complete", value: { output: "false" } });
  assert.ok(!stream.left);
  const [warning] = logger.warnings;
  assert.match(warning ?? "", /the event loop stood still for .* longer than a heartbeat interval of 1 s/);
});

test("a restarted server is found again", async (t) => {
  const server = await scripted(t);
  const held = new Held();
  await working(server, held.handle);
  (await server.opened()).deliver(delivery("h-1"));
  await held.started("h-1");
  server.stop();
  await server.start();
  await server.opened();
  held.release("h-1");
  assert.equal(await server.end("h-1"), "complete");
});

test("a worker waits for a server and for a queue that are not there yet, and says each trouble once", async (t) => {
  const server = await scripted(t);
  const logger = new Lines();
  server.stop();
  await working(server, new Held().handle, { logger });
  await until("it tried", () => logger.warnings.length > 0);
  await pause(1);
  await server.start();
  (await server.stream()).end(new Refusal(status.NOT_FOUND, { reason: "QUEUE_NOT_FOUND", text: "no queue" }));
  (await server.stream()).end(new Refusal(status.NOT_FOUND, { reason: "QUEUE_NOT_FOUND", text: "no queue" }));
  assert.equal((await server.opened()).request.resume, undefined);
  assert.equal(new Set(logger.warnings).size, logger.warnings.length, logger.warnings.join("\n"));
  assert.ok(logger.warnings[0]?.includes(`cannot reach Jobwire at ${server.address}`));
});

test("a refused registration ends the worker with the server's words", async (t) => {
  const server = await scripted(t);
  const worker = new Worker(server.address, { logger: new Lines() });
  const held = new Held();
  worker.handler("no:colon", held.handle).handler("fine", held.handle);
  const running = worker.run();
  const streams = [await server.stream(), await server.stream()];
  const bad = streams.find(({ request }) => request.queues[0] === "no:colon");
  const fine = streams.find(({ request }) => request.queues[0] === "fine");
  fine?.open("s-2");
  fine?.deliver(delivery("h-1"));
  await held.started("h-1");
  held.release("h-1");
  bad?.end(
    new Refusal(status.INVALID_ARGUMENT, { reason: "INVALID_ARGUMENT", text: "letters only", field: "queues[0]" }),
  );
  await assert.rejects(within("its end", running), (error: unknown) => {
    assert.ok(error instanceof InvalidArgument);
    assert.match(error.message, /letters only/);
    assert.equal(error.fieldViolations[0]?.field, "queues[0]");
    return true;
  });
  assert.equal(await server.end("h-1"), "complete");
  assert.ok(server.acks.some(({ closeSession, sessionId }) => closeSession && sessionId === "s-2"));
});

test("a worker that was started and must end says so, and stop rejects", async (t) => {
  const server = await scripted(t);
  const logger = new Lines();
  const worker = await working(server, new Held().handle, { logger });
  (await server.stream()).end(new Refusal(status.UNAUTHENTICATED, { reason: "UNAUTHENTICATED", text: "who are you" }));
  await until("it has ended", () => logger.warnings.some((line) => line.includes("the worker has ended")));
  await assert.rejects(worker.stop(), /who are you/);
});

test("a handler without a lease keeps its place until it ends", async (t) => {
  const server = await scripted(t);
  let go = () => {};
  let started = false;
  const stubborn = () => {
    started = true;
    return new Promise<void>((resolve) => {
      go = resolve;
    });
  };
  await working(server, stubborn);
  const first = await server.opened();
  first.deliver(delivery("h-1"));
  await until("it is started", () => started);
  first.end(cut());
  await server.opened("s-1", { lost: ["h-1"] });
  await server.ack(({ maxInFlight }) => maxInFlight === 0);
  go();
  await server.ack(({ maxInFlight }) => maxInFlight === 1);
});

test("what a handler says without a lease is said to nobody", async (t) => {
  const server = await scripted(t);
  let begun = false;
  let said = false;
  await working(server, async (job) => {
    begun = true;
    await until("it is told", () => job.signal.aborted);
    await job.progress(0.5, "too late", { checkpoint: 1 });
    await job.extend(60);
    said = true;
    await pause(0.5);
    return "too late";
  });
  const first = await server.opened();
  first.deliver(delivery("h-1"));
  await until("it has begun", () => begun);
  first.end(cut());
  const second = await server.opened("s-1", { lost: ["h-1"] });
  await until("it has said it", () => said);
  second.deliver(delivery("h-2"));
  await server.settled("h-2");
  assert.ok(!server.withItems.flat().includes("h-1"));
});

test("no session is opened while no place is free", async (t) => {
  const server = await scripted(t);
  let go = () => {};
  let started = false;
  const stubborn = () => {
    started = true;
    return new Promise<void>((resolve) => {
      go = resolve;
    });
  };
  await working(server, stubborn);
  const first = await server.opened();
  first.deliver(delivery("h-1"));
  await until("it is started", () => started);
  first.end(takenOver());
  await pause(0.5);
  assert.ok(server.noStream);
  go();
  assert.equal((await server.stream()).request.maxInFlight, 1);
});

test("a job delivered before begins when its receipt is known, or could not be told; a new one at once", async (t) => {
  for (const refuses of [false, true]) {
    const server = await scripted(t);
    const begun: string[] = [];
    const receipts: number[] = [];
    let open = () => {};
    const opened = new Promise<void>((resolve) => {
      open = resolve;
    });
    server.answerAck = async (request) => {
      if (request.items.length === 0 && request.maxInFlight === undefined) {
        receipts.push(request.lastSequence);
        await opened;
        if (refuses) throw new Refusal(status.UNAVAILABLE, { reason: "DATABASE_UNAVAILABLE" });
      }
      return allApplied(request);
    };
    const handle = (job: Job) => {
      begun.push(job.id);
    };
    await working(server, handle, { concurrency: 10 });
    const stream = await server.opened();
    stream.deliver(
      delivery("again", null, { attempt: 2 }),
      delivery("and-again", null, { attempt: 7 }),
      delivery("new"),
    );
    await server.settled("new");
    assert.deepEqual(begun, ["job-of-new"]);
    assert.deepEqual(receipts, [2], "one for all that came together, and it names their event");
    open();
    await server.settled("again");
    await server.settled("and-again");
    assert.deepEqual(begun.sort(), ["job-of-again", "job-of-and-again", "job-of-new"]);
  }
});

test("a job that is cancelled before its receipt is known never begins", async (t) => {
  const server = await scripted(t);
  server.answerAck = (request) => (request.items.length === 0 ? new Promise(() => {}) : allApplied(request));
  let begun = false;
  await working(server, () => {
    begun = true;
  });
  const stream = await server.opened();
  stream.deliver(delivery("again", null, { attempt: 2 }));
  stream.cancel("again");
  assert.equal(await server.end("again"), "release");
  assert.deepEqual([begun, server.givenUp], [false, 0], "it did not wait until the receipt was given up either");
});
