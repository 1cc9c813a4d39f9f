// How a worker stops: it finishes or gives back what it runs, reports everything, and leaves in order. And how it leaves when
// an operator asks for it.

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { status } from "@grpc/grpc-js";
import { type Job, type Queues, Worker } from "jobwire";
import { type AckRequest, AckResponse } from "jobwire/v1";
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

const isQuiet = ({ maxInFlight }: AckRequest) => maxInFlight === 0;
const isFarewell = ({ closeSession }: AckRequest) => closeSession;

test("it takes nothing more, finishes what runs, and says farewell last", async (t) => {
  const server = await scripted(t);
  const held = new Held();
  const worker = await working(server, held.handle, { concurrency: 5 });
  const stream = await server.opened();
  stream.deliver(delivery("h-1"));
  await held.started("h-1");
  assert.ok(!worker.stopping);
  const leaving = worker.stop();
  assert.ok(worker.stopping);
  await server.ack(isQuiet);
  stream.deliver(delivery("h-2"));
  assert.equal(await server.end("h-2"), "release");
  const sequence = stream.heartbeat();
  await server.ack(({ lastSequence }) => lastSequence === sequence);
  held.release("h-1");
  await within("its end", leaving);
  assert.deepEqual(await server.settled("h-1"), { $case: "complete", value: { output: '"done"' } });
  const farewell = server.acks.at(-1) as AckRequest;
  assert.ok(isFarewell(farewell) && farewell.sessionId === "s-1");
  await within("a stop of what has stopped", worker.stop());
});

test("that it takes nothing more is said when the resume is answered, since before it may be forgotten", async (t) => {
  const server = await scripted(t);
  const held = new Held();
  const worker = await working(server, held.handle, { concurrency: 5 });
  const stream = await server.opened();
  stream.deliver(delivery("h-1"), delivery("h-2"));
  await held.started("h-2");
  const leaving = worker.stop();
  await server.ack(isQuiet);
  stream.end(cut());
  const resumed = await server.stream();
  held.release("h-2");
  await server.settled("h-2");
  resumed.open();
  await server.ack((ack) => isQuiet(ack) && ack.lastSequence === 1);
  held.release("h-1");
  await within("its end", leaving);
});

test("what does not finish in time is told to stop, and given back", async (t) => {
  const server = await scripted(t);
  const held = new Held();
  const worker = await working(server, held.handle, { stopGrace: 0.05 });
  (await server.opened()).deliver(delivery("h-1"));
  await held.started("h-1");
  await within("its end", worker.stop());
  assert.deepEqual([...held.stopped.values()], ["stopping"]);
  assert.equal(await server.end("h-1"), "release");
  assert.ok(isFarewell(server.acks.at(-1) as AckRequest));
});

test("a handler that breaks because the worker stops has not failed", async (t) => {
  const server = await scripted(t);
  const held = new Held();
  const worker = await working(server, (job: Job) =>
    Promise.resolve(held.handle(job)).catch(() => {
      throw new Error("connection lost in the middle");
    }),
  );
  (await server.opened()).deliver(delivery("h-1"));
  await held.started("h-1");
  await within("its end", worker.stop({ now: true }));
  assert.equal(await server.end("h-1"), "release");
});

test("a handler that ignores its signal is left behind, and its job given back", async (t) => {
  const server = await scripted(t);
  const logger = new Lines();
  let started = false;
  let go = () => {};
  const stubborn = () => {
    started = true;
    return new Promise<void>((resolve) => {
      go = resolve;
    });
  };
  const worker = await working(server, stubborn, { logger });
  (await server.opened()).deliver(delivery("h-1"));
  await until("it is started", () => started);
  await within("its end", worker.stop({ now: true }), 20);
  assert.equal(await server.end("h-1"), "release");
  assert.ok(isFarewell(server.acks.at(-1) as AckRequest));
  assert.ok(logger.warnings.some((line) => line.includes("did not stop in time")));
  const acks = server.acks.length;
  go();
  await pause(0.1);
  assert.equal(server.acks.length, acks);
});

test("the last Acks are repeated until they are answered", async (t) => {
  const server = await scripted(t);
  const held = new Held();
  const worker = await working(server, held.handle);
  (await server.opened()).deliver(delivery("h-1"));
  await held.started("h-1");
  let left = 5;
  server.answerAck = (request) => {
    if (request.items.length > 0 && left-- > 0) {
      throw new Refusal(status.UNAVAILABLE, { reason: "DATABASE_UNAVAILABLE", retryAfter: 0.01 });
    }
    return allApplied(request);
  };
  const leaving = worker.stop();
  held.release("h-1");
  await within("its end", leaving);
  assert.equal(server.withItems.length, 6);
  assert.ok(isFarewell(server.acks.at(-1) as AckRequest));
});

test("a stream that breaks meanwhile is resumed for what still runs", async (t) => {
  const server = await scripted(t);
  const held = new Held();
  const worker = await working(server, held.handle, { concurrency: 5 });
  const first = await server.opened();
  first.deliver(delivery("h-1"));
  await held.started("h-1");
  const leaving = worker.stop();
  await server.ack(isQuiet);
  first.end(cut());
  const acks = server.acks.length;
  const second = await server.opened();
  assert.deepEqual(second.request.resume?.held, ["h-1"]);
  await server.ack(isQuiet, acks);
  held.release("h-1");
  await within("its end", leaving);
  assert.equal(await server.end("h-1"), "complete");
  assert.ok(isFarewell(server.acks.at(-1) as AckRequest));
});

test("a worker stops without a server, before and while it opens", async (t) => {
  const server = await scripted(t);
  server.stop();
  for (const wait of [0, 0.3]) {
    const worker = await working(server, new Held().handle);
    await pause(wait);
    const stops = [worker.stop(), worker.stop()];
    await within("its end", Promise.all(stops), 5);
  }
});

test("a session that is just being opened is closed", async (t) => {
  const server = await scripted(t);
  const worker = await working(server, new Held().handle);
  const stream = await server.stream();
  const leaving = worker.stop();
  await pause(0.1);
  stream.open();
  await within("its end", leaving);
  assert.ok(isFarewell(server.acks.at(-1) as AckRequest));
});

test("with the server gone for good it ends after its time, and says what could not be reported", async (t) => {
  const server = await scripted(t);
  const held = new Held();
  const logger = new Lines();
  const worker = await working(server, held.handle, { stopGrace: 1, logger });
  (await server.opened()).deliver(delivery("h-1"));
  await held.started("h-1");
  server.stop();
  held.release("h-1");
  const begun = performance.now();
  await within("its end", worker.stop(), 20);
  const took = (performance.now() - begun) / 1000;
  assert.ok(took > 2 && took < 10, `it took ${took} s`);
  assert.ok(logger.warnings.some((line) => line.includes("no server took the ends of 1 jobs")));
  assert.ok(logger.warnings.some((line) => line.includes("could not close session s-1")));
});

test("Acks that hang at the stop do not outlive it, nor does a farewell", async (t) => {
  for (const takesFarewell of [true, false]) {
    const server = await scripted(t);
    const held = new Held();
    const logger = new Lines();
    const worker = await working(server, held.handle, { stopGrace: 0, logger });
    (await server.opened()).deliver(delivery("h-1"));
    await held.started("h-1");
    server.answerAck = (request) =>
      request.closeSession && takesFarewell ? allApplied(request) : new Promise(() => {});
    held.release("h-1");
    await server.settled("h-1");
    await within("its end", worker.stop(), 15);
    assert.ok(server.acks.some(isFarewell));
    assert.equal(
      !takesFarewell,
      logger.warnings.some((line) => line.includes("could not close session s-1")),
    );
  }
});

test("a worker may run again, not twice at once, and not without handlers", async (t) => {
  const server = await scripted(t);
  const worker = new Worker(server.address, { logger: new Lines() });
  await assert.rejects(worker.run(), /has no handlers/);
  worker.handler("q", new Held().handle);
  for (const session of ["s-1", "s-2"]) {
    const running = worker.run();
    await assert.rejects(worker.run(), /runs already/);
    assert.throws(() => worker.handler("other", () => {}), /runs already: register its handlers before/);
    await server.opened(session);
    await worker.stop();
    await running;
    assert.equal(server.acks.at(-1)?.sessionId, session);
  }
  assert.equal(process.listenerCount("SIGTERM"), 0);
});

test("any number of workers in a process stop at one signal, with one listener", async (t) => {
  const server = await scripted(t);
  const workers = Array.from({ length: 12 }, (_, n) => {
    const worker = new Worker(server.address, { logger: new Lines() });
    return worker.handler(`q-${n}`, new Held().handle);
  });
  const running = workers.map((worker) => worker.run());
  for (const n of workers.keys()) await server.opened(`s-${n + 1}`);
  assert.equal(process.listenerCount("SIGTERM"), 1);
  process.kill(process.pid, "SIGTERM");
  await within("their end", Promise.all(running));
  assert.equal(process.listenerCount("SIGTERM"), 0);
});

// Asked to leave by an operator.

function desk(server: { address: string; workers: Worker[] }, ...queues: Queues[]) {
  const held = new Held();
  // A grace that nothing could finish within.
  const worker = new Worker(server.address, { stopGrace: 0, logger: new Lines() });
  for (const queue of queues) worker.handler(queue, { concurrency: 5 }, held.handle);
  server.workers.push(worker);
  return { held, worker };
}

test("asked to leave, all its sessions finish what runs however long that takes, and it ends", async (t) => {
  const server = await scripted(t);
  const { held, worker } = desk(server, "q", "r");
  let ended = false;
  const running = worker.run().then(() => {
    ended = true;
  });
  const [one, other] = [await server.opened("s-1"), await server.opened("s-2")];
  one.deliver(delivery("h-1"));
  await held.started("h-1");
  other.quiet();
  for (const session of ["s-1", "s-2"]) await server.ack((ack) => isQuiet(ack) && ack.sessionId === session);
  one.deliver(delivery("h-2"));
  assert.equal(await server.end("h-2"), "release");
  await pause(0.3);
  assert.ok(!ended);
  held.release("h-1");
  await within("its end", running);
  assert.equal(await server.end("h-1"), "complete");
  const left = server.acks.filter(isFarewell).map(({ sessionId }) => sessionId);
  assert.deepEqual(left.sort(), ["s-1", "s-2"]);
});

test("a stop while it leaves has its grace", async (t) => {
  const server = await scripted(t);
  const { held, worker } = desk(server, "q");
  const running = worker.run();
  const stream = await server.opened();
  stream.deliver(delivery("h-1"));
  await held.started("h-1");
  stream.quiet();
  await server.ack(isQuiet);
  await worker.stop();
  await within("its end", running);
  assert.equal(await server.end("h-1"), "release");
});

test("a stream that breaks while it leaves is resumed for what still runs", async (t) => {
  const server = await scripted(t);
  const { held, worker } = desk(server, "q");
  const running = worker.run();
  const stream = await server.opened();
  stream.deliver(delivery("h-1"));
  await held.started("h-1");
  stream.quiet();
  await server.ack(isQuiet);
  stream.end(cut());
  const again = await server.opened();
  assert.deepEqual(again.request.resume?.held, ["h-1"]);
  again.quiet();
  held.release("h-1");
  await within("its end", running);
  assert.equal(await server.end("h-1"), "complete");
});

// Processes.

const PROGRAM = `
  import { Worker } from "jobwire";
  import { setTimeout as sleep } from "node:timers/promises";
  const worker = new Worker(process.argv[1], { stopGrace: 20 });
  worker.handler("q", { concurrency: 3 }, async (job) => {
    await job.extend(60);
    if (job.data === "endless") await sleep(1e6, undefined, { signal: job.signal });
    await sleep(200);
    return "finished";
  });
  await worker.run();
  console.log("left in order");
`;

/** A worker in a process of its own. */
function program(t: { after(end: () => void): void }, text: string, address: string) {
  const child: ChildProcess = spawn(process.execPath, ["--input-type=module", "-e", text, address], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  t.after(() => child.kill("SIGKILL"));
  const said = { output: "", errors: "" };
  child.stdout?.on("data", (chunk) => {
    said.output += chunk;
  });
  child.stderr?.on("data", (chunk) => {
    said.errors += chunk;
  });
  const ended = once(child, "close").then(([code]) => ({ code, ...said }));
  return { child, said, ended };
}

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  test(`${signal} ends a worker in order, and a second one soon`, async (t) => {
    const server = await scripted(t);
    const { child, ended } = program(t, PROGRAM, server.address);
    const stream = await server.opened();
    stream.deliver(delivery("short"), delivery("endless", "endless"));
    for (const handle of ["short", "endless"])
      await server.ack(({ items }) => items.some((item) => item.handle === handle));
    child.kill(signal);
    await server.ack(isQuiet);
    assert.deepEqual(await server.settled("short"), { $case: "complete", value: { output: '"finished"' } });
    child.kill(signal);
    assert.equal(await server.end("endless"), "release");
    assert.deepEqual(await within("its end", ended), { code: 0, output: "left in order\n", errors: "" });
    assert.ok(isFarewell(server.acks.at(-1) as AckRequest));
  });
}

test("a process that has nothing to do but to wait for jobs goes on, and ends when it is asked to leave", async (t) => {
  const server = await scripted(t);
  const { child, ended } = program(t, PROGRAM, server.address);
  const first = await server.opened();
  first.end(cut());
  server.stop();
  await pause(2);
  assert.equal(child.exitCode, null);
  await server.start();
  (await server.opened()).quiet();
  assert.deepEqual((await within("its end", ended)).code, 0);
});

test("SIGTERM during a resume, with the server down and an Ack without an answer: it ends in time, with a warning", async (t) => {
  const server = await scripted(t);
  const text = PROGRAM.replace("stopGrace: 20", "stopGrace: 0.5");
  const { child, said, ended } = program(t, text, server.address);
  server.answerAck = (request) =>
    request.items.some(({ outcome }) => outcome?.$case === "complete") ? new Promise(() => {}) : allApplied(request);
  (await server.opened()).deliver(delivery("short"));
  await server.settled("short");
  server.stop();
  await until("it noticed", () => said.errors.includes("no stream"));
  child.kill("SIGTERM");
  const { code, output, errors } = await within("its end", ended, 20);
  assert.deepEqual([code, output], [0, "left in order\n"]);
  assert.match(errors, /no server took the ends of 1 jobs/);
});

test("whoever starts a worker without minding its end gets no unhandled rejection", async (t) => {
  const server = await scripted(t);
  const text = `
    import { Worker } from "jobwire";
    const worker = new Worker(process.argv[1]);
    worker.handler("q", () => {});
    await worker.start();
    setTimeout(() => void worker.stop(), 1500);
  `;
  const { ended } = program(t, text, server.address);
  (await server.stream()).end(new Refusal(status.PERMISSION_DENIED, { reason: "NO", text: "not you" }));
  const { code, errors } = await within("its end", ended);
  assert.equal(code, 0, errors);
  assert.match(errors, /the worker has ended: .*not you/);
});

// What it takes.

test("one handler takes its share of several queues, and says so again at a resume", async (t) => {
  const server = await scripted(t);
  const { held, worker } = desk(server, [
    "q",
    { queue: "r", weight: 3, maxInFlight: 2, minPriority: 0, maxPriority: 9 },
  ]);
  await worker.start();
  const stream = await server.opened();
  const { queues, shares, maxInFlight } = stream.request;
  assert.deepEqual([queues, maxInFlight], [["q", "r"], 5]);
  const whole = { queue: "q", weight: 1, maxInFlight: undefined, minPriority: undefined, maxPriority: undefined };
  assert.deepEqual(shares, [whole, { queue: "r", weight: 3, maxInFlight: 2, minPriority: 0, maxPriority: 9 }]);
  stream.deliver(delivery("h-1"), delivery("h-2", null, { queue: "r" }));
  await held.started("h-1", "h-2");
  stream.end(cut());
  assert.equal((await server.opened()).request.shares.length, 2);
});

test("who takes all says nothing of shares", async (t) => {
  const server = await scripted(t);
  const { worker } = desk(server, ["q", { queue: "r", weight: 1 }]);
  await worker.start();
  const { queues, shares } = (await server.opened()).request;
  assert.deepEqual([queues, shares], [["q", "r"], []]);
});

test("a registration that makes no sense is refused", () => {
  const worker = new Worker("127.0.0.1:1");
  const handle = () => {};
  assert.throws(() => worker.handler(["q", { queue: "q", weight: 2 }], handle), /'q' has a handler already/);
  worker.handler(["q", "r"], handle);
  assert.throws(() => worker.handler({ queue: "r" }, handle), /'r' has a handler already/);
  assert.throws(() => worker.handler([], handle), /needs a queue/);
  for (const concurrency of [0, 1001, 1.5, Number.NaN]) {
    assert.throws(() => worker.handler("s", { concurrency }, handle), /concurrency .* between 1 and 1000/);
  }
  assert.throws(() => worker.handler("s", { concurrency: 2 }, undefined as never), /is not a function/);
  assert.throws(() => worker.batchHandler("s", { size: 0 }, handle), /size 0 of queue 's'/);
  assert.throws(() => worker.batchHandler("s", { size: 2, wait: 61 }, handle), /wait 61 s of queue 's'/);
  assert.throws(() => new Worker("127.0.0.1:1", { stopGrace: -1 }), /stopGrace -1/);
  assert.throws(() => new Worker("127.0.0.1:1", { heartbeatInterval: Number.NaN }), /heartbeatInterval NaN/);
  // As JavaScript may have it: from the environment, from a module that is not loaded yet, by a slip.
  assert.throws(() => new Worker("127.0.0.1:1", { stopGrace: "5" as never }), /stopGrace 5: it must be a number/);
  for (const queue of [undefined, null, 5, {}, ["s", undefined]]) {
    assert.throws(() => worker.handler(queue as never, handle), /^TypeError: a handler's queue is given by its name/);
  }
  assert.throws(() => worker.handler({ queue: "s", weight: 1.5 }, handle), /weight 1.5 of queue 's' must be a whole/);
  assert.throws(() => Reflect.apply(worker.handler, worker, ["s"]), /is not a function/);
});

test("an Ack that the server answers with too few results is repeated", async (t) => {
  const server = await scripted(t);
  let short = true;
  server.answerAck = (request) => {
    if (request.items.length > 0 && short) {
      short = false;
      return AckResponse.fromPartial({ sessionAlive: true });
    }
    return allApplied(request);
  };
  const worker = await working(server, () => 1);
  (await server.opened()).deliver(delivery("h-1"));
  await until("it is repeated", () => server.withItems.length === 2);
  await within("its end", worker.stop());
});
