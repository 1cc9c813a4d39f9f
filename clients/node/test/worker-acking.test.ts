// Acks: grouped, repeated until answered, and no harm from a bad one. Progress, checkpoints and extensions on the way.

import assert from "node:assert/strict";
import { test } from "node:test";
import { status } from "@grpc/grpc-js";
import { type Job, ReleaseJob } from "jobwire";
import { type AckRequest, AckResponse, AckStatus, CancelReason } from "jobwire/v1";
import {
  allApplied,
  cut,
  delivery,
  Held,
  Lines,
  pause,
  Refusal,
  type ScriptedServer,
  scripted,
  until,
  working,
} from "./scripted.js";

const atOnce = (job: Job) => job.data;

/** Answers Acks with statements only after the test has opened it; others pass. */
function gate() {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  const answer = async (request: AckRequest) => {
    if (request.items.length > 0) await opened;
    return allApplied(request);
  };
  return { open, answer };
}

/** Refuses the first Acks with statements, then answers. */
function failing(...refusals: Refusal[]) {
  return (request: AckRequest) => {
    const refusal = request.items.length > 0 ? refusals.shift() : undefined;
    if (refusal !== undefined) throw refusal;
    return allApplied(request);
  };
}

/** The checkpoints that arrived before the end of a delivery, in order. */
function left(server: ScriptedServer, handle: string): string[] {
  const found: string[] = [];
  for (const { outcome } of server.acks.flatMap(({ items }) => items).filter((item) => item.handle === handle)) {
    if (outcome?.$case !== "extend") return found;
    const { checkpoint } = outcome.value.progress ?? {};
    if (checkpoint !== undefined) found.push(checkpoint);
  }
  throw new Error("the delivery was not settled");
}

/** Waits until a worker has read all that was sent to it so far. */
async function read(server: ScriptedServer, stream: { heartbeat(): number }): Promise<void> {
  const sequence = stream.heartbeat();
  await server.ack(({ items, lastSequence }) => items.length === 0 && lastSequence === sequence);
}

test("what ends during a call goes into the next", async (t) => {
  const server = await scripted(t);
  const { open, answer } = gate();
  server.answerAck = answer;
  await working(server, atOnce, { concurrency: 100 });
  const stream = await server.opened();
  stream.deliver(delivery("h-0"));
  await server.settled("h-0");
  const handles = Array.from({ length: 40 }, (_, n) => `h-${n + 1}`);
  stream.deliver(...handles.slice(0, 20).map((handle) => delivery(handle)));
  stream.deliver(...handles.slice(20).map((handle) => delivery(handle)));
  await read(server, stream);
  open();
  await server.settled("h-40");
  assert.deepEqual(server.withItems, [["h-0"], handles]);
});

test("what ends in one turn of the loop goes into one call", async (t) => {
  const server = await scripted(t);
  const soon = async (job: Job) => {
    for (let n = 0; n < (job.data as number); n += 1) await null;
  };
  await working(server, soon, { concurrency: 100 });
  const stream = await server.opened();
  stream.deliver(...Array.from({ length: 50 }, (_, n) => delivery(`h-${n}`, 10 * n)));
  await server.settled("h-49");
  assert.deepEqual(
    server.withItems.map((handles) => handles.length),
    [50],
  );
});

test("an Ack without an answer is repeated, and survives the resume", async (t) => {
  const server = await scripted(t);
  const away = () => new Refusal(status.UNAVAILABLE, { reason: "DATABASE_UNAVAILABLE", retryAfter: 0.01 });
  const dropped = new Refusal(status.CANCELLED);
  server.answerAck = failing(away(), cut(), dropped, new Refusal(status.DEADLINE_EXCEEDED), away());
  await working(server, atOnce);
  const stream = await server.opened();
  stream.deliver(delivery("h-1", 7));
  await server.settled("h-1");
  stream.end(cut());
  await server.opened();
  await until("it is said for the sixth time", () => server.withItems.length === 6);
  assert.deepEqual(server.withItems, Array(6).fill(["h-1"]));
  for (const { items } of server.acks.filter((ack) => ack.items.length > 0)) {
    assert.deepEqual(items[0]?.outcome, { $case: "complete", value: { output: "7" } });
  }
});

test("a token that is none for a while costs no session and no Ack", async (t) => {
  const server = await scripted(t);
  const held = new Held();
  const logger = new Lines();
  let token = "good";
  await working(server, held.handle, { logger, concurrency: 2, token: () => token });
  const stream = await server.opened();
  stream.deliver(delivery("h-1"), delivery("h-2"));
  await held.started("h-1", "h-2");
  token = "with the end of its line\n";
  held.release("h-1");
  stream.end(cut());
  await until("it noticed", () => logger.warnings.some((line) => line.includes("token: ")));
  await pause(0.5);
  assert.deepEqual(server.withItems, []);
  token = "good";
  const { resume } = (await server.opened()).request;
  assert.deepEqual([resume?.sessionId, resume?.held[0]], ["s-1", "h-2"]);
  held.release("h-2");
  assert.deepEqual([await server.end("h-1"), await server.end("h-2")], ["complete", "complete"]);
});

test("a delivery is held until its Ack is answered", async (t) => {
  const server = await scripted(t);
  const { open, answer } = gate();
  server.answerAck = answer;
  await working(server, atOnce);
  const first = await server.opened();
  first.deliver(delivery("h-1"));
  await server.settled("h-1");
  first.end(cut());
  const second = await server.stream();
  assert.deepEqual(second.request.resume?.held, ["h-1"]);
  open();
  // The server has applied it before the resume, so it lists the delivery as lost. That is no reason to forget it.
  second.open("s-1", { lost: ["h-1"] });
  second.end(cut());
  assert.deepEqual((await server.stream()).request.resume?.held, []);
});

test("a resume names what runs before what waits for an answer", async (t) => {
  const server = await scripted(t);
  const { open, answer } = gate();
  server.answerAck = answer;
  const held = new Held();
  await working(server, (job) => (job.data ? held.handle(job) : undefined), { concurrency: 1000 });
  const stream = await server.opened();
  const some = (letter: string, data: unknown) =>
    Array.from({ length: 600 }, (_, n) => delivery(`${letter}-${n}`, data));
  stream.deliver(...some("a", false));
  await read(server, stream);
  stream.deliver(...some("z", true));
  await held.started("z-599");
  stream.end(cut());
  const again = await server.stream();
  const named = again.request.resume?.held ?? [];
  assert.equal(new Set(named).size, 1000);
  assert.equal(named.filter((handle) => handle.startsWith("z-")).length, 600);
  open();
});

test("Acks outlive their session", async (t) => {
  const server = await scripted(t);
  const { open, answer } = gate();
  server.answerAck = answer;
  await working(server, atOnce);
  const first = await server.opened("s-1");
  first.deliver(delivery("h-1"));
  await server.settled("h-1");
  first.end(new Refusal(status.NOT_FOUND, { reason: "SESSION_LOST" }));
  const second = await server.opened("s-2");
  open();
  second.deliver(delivery("h-2"));
  await server.settled("h-2");
});

for (const name of ["LEASE_LOST", "NOT_FOUND", "CANCELLED"] as const) {
  test(`${name} is an answer`, async (t) => {
    const server = await scripted(t);
    server.answerAck = ({ items }) =>
      AckResponse.fromPartial({ results: items.map(() => ({ status: AckStatus[name] })), sessionAlive: true });
    const logger = new Lines();
    await working(server, (job) => (job.data ? new ReleaseJob() : 1), { logger });
    const stream = await server.opened();
    stream.deliver(delivery("h-1"));
    await server.settled("h-1");
    stream.deliver(delivery("h-2"));
    await server.settled("h-2");
    stream.end(cut());
    assert.ok(!(await server.stream()).request.resume?.held.includes("h-1"));
    assert.deepEqual(server.withItems, [["h-1"], ["h-2"]]);
    assert.ok(logger.warnings.includes(`job job-of-h-1: its end (complete) does not count: ${name}`));
  });
}

test("every heartbeat is answered, even while an Ack hangs", async (t) => {
  const server = await scripted(t);
  const { open, answer } = gate();
  server.answerAck = answer;
  await working(server, atOnce);
  const stream = await server.opened();
  stream.deliver(delivery("h-1"));
  await server.settled("h-1");
  for (let n = 0; n < 3; n += 1) {
    const sequence = stream.heartbeat();
    const ack = await server.ack(({ lastSequence }) => lastSequence === sequence);
    assert.deepEqual([ack.sessionId, ack.items], ["s-1", []]);
  }
  open();
});

test("a refused statement harms no other, and its job gets a plainer end", async (t) => {
  const server = await scripted(t);
  const { open, answer } = gate();
  const bad = ({ items }: AckRequest) =>
    items.some(({ outcome }) => outcome?.$case === "complete" && outcome.value.output === '"bad"');
  server.answerAck = async (request) => {
    const response = await answer(request);
    const text = "output: 70000 bytes, limit 65536";
    if (bad(request)) throw new Refusal(status.INVALID_ARGUMENT, { reason: "DATA_TOO_LARGE", text });
    return response;
  };
  await working(server, atOnce, { concurrency: 50 });
  const stream = await server.opened();
  stream.deliver(delivery("h-0"));
  await server.settled("h-0");
  const handles = Array.from({ length: 11 }, (_, n) => `h-${n + 1}`);
  stream.deliver(...handles.map((handle) => delivery(handle, handle === "h-5" ? "bad" : 1)));
  await read(server, stream);
  open();
  const { items } = await server.ack((ack) => ack.items.some(({ outcome }) => outcome?.$case === "fail"));
  assert.equal(items.length, 1);
  assert.equal(items[0]?.handle, "h-5");
  assert.ok(items[0]?.outcome?.$case === "fail" && items[0].outcome.value.permanent);
  assert.match(items[0].outcome.value.message, /output: 70000 bytes, limit 65536/);
  stream.deliver(delivery("last"));
  await server.settled("last");
  const accepted = server.acks.filter((ack) => !bad(ack)).flatMap((ack) => ack.items.map(({ handle }) => handle));
  assert.deepEqual(accepted.sort(), ["h-0", ...handles, "last"].sort());
});

test("a job that somebody has locked harms no other, and goes alone until the lock is gone", async (t) => {
  const server = await scripted(t);
  const { open, answer } = gate();
  let locked = true;
  let refused = 0;
  server.answerAck = async (request) => {
    const response = await answer(request);
    if (locked && request.items.some(({ handle }) => handle === "h-5")) {
      refused += 1;
      throw new Refusal(status.ABORTED, { reason: "LOCK_TIMEOUT" });
    }
    return response;
  };
  await working(server, atOnce, { concurrency: 50 });
  const stream = await server.opened();
  stream.deliver(delivery("h-0"));
  await server.settled("h-0");
  stream.deliver(...Array.from({ length: 11 }, (_, n) => delivery(`h-${n + 1}`)));
  await read(server, stream);
  open();
  for (let n = 12; n < 30; n += 1) {
    stream.deliver(delivery(`h-${n}`));
    await server.settled(`h-${n}`);
  }
  await until("it was refused alone", () => refused >= 7);
  locked = false;
  await until("it is applied", () => server.withItems.at(-1)?.[0] === "h-5");
  stream.deliver(delivery("last"));
  await server.settled("last");
  const accepted = server.withItems.filter((handles) => !handles.includes("h-5")).flat();
  const others = [...Array.from({ length: 30 }, (_, n) => `h-${n}`), "last"].filter((handle) => handle !== "h-5");
  assert.deepEqual(accepted.sort(), others.sort());
  const with5 = server.withItems.filter((handles) => handles.includes("h-5"));
  assert.deepEqual(with5.slice(-3), [["h-5"], ["h-5"], ["h-5"]]);
});

test("large results are split over calls", async (t) => {
  const server = await scripted(t);
  const { open, answer } = gate();
  server.answerAck = answer;
  await working(server, (job) => (job.data ? "ä".repeat(job.data as number) : undefined), { concurrency: 50 });
  const stream = await server.opened();
  stream.deliver(delivery("h-0"));
  await server.settled("h-0");
  const handles = Array.from({ length: 40 }, (_, n) => `h-${n + 1}`);
  // Every other result is 400,000 bytes, of which seven fit into a call; the others are nothing.
  stream.deliver(...handles.map((handle, n) => delivery(handle, n % 2 ? 0 : 200_000)));
  await read(server, stream);
  open();
  await server.settled("h-40");
  assert.deepEqual(server.withItems, [["h-0"], handles.slice(0, 14), handles.slice(14, 28), handles.slice(28)]);
});

test("progress is sent at a bearable pace, and the latest word wins", async (t) => {
  const server = await scripted(t);
  let reported = false;
  let go = () => {};
  await working(server, async (job) => {
    for (let step = 0; step < 1000; step += 1) await job.progress(step / 1000, `step ${step}`);
    await job.progress(7.5, "x".repeat(5000));
    reported = true;
    await new Promise<void>((resolve) => {
      go = resolve;
    });
  });
  const stream = await server.opened();
  stream.deliver(delivery("h-1"));
  await until("all is said", () => reported);
  const said = () =>
    server.acks
      .flatMap(({ items }) => items)
      .flatMap(({ outcome }) => (outcome?.$case === "extend" ? [outcome.value] : []));
  await until("the last word arrived", () => said().at(-1)?.progress?.fraction === 1);
  go();
  await server.settled("h-1");
  assert.deepEqual(said().at(-1), {
    expireIn: undefined,
    progress: { fraction: 1, note: "x".repeat(1000), checkpoint: undefined },
  });
  assert.ok(said().length < 100, `${said().length} reports`);
});

test("an extension is done when it is answered", async (t) => {
  const server = await scripted(t);
  const { open, answer } = gate();
  server.answerAck = answer;
  let extended = false;
  await working(server, async (job) => {
    await job.extend(600);
    extended = true;
  });
  (await server.opened()).deliver(delivery("h-1"));
  const { items } = await server.ack((ack) => ack.items.length > 0);
  assert.deepEqual(items[0]?.outcome, {
    $case: "extend",
    value: { expireIn: { seconds: 600, nanos: 0 }, progress: undefined },
  });
  assert.ok(!extended);
  open();
  await server.settled("h-1");
  assert.ok(extended);
});

test("who extends again does not keep the first one waiting", async (t) => {
  const server = await scripted(t);
  const { open, answer } = gate();
  server.answerAck = answer;
  const done: number[] = [];
  await working(server, async (job) => {
    const first = job.extend(600).then(() => done.push(600));
    await until("it is said", () => server.withItems.length === 1);
    server.answerAck = (request) => (done.length > 0 ? allApplied(request) : new Promise(() => {}));
    void job.extend(1200).then(() => done.push(1200));
    open();
    await first;
  });
  (await server.opened()).deliver(delivery("h-1"));
  await server.ack(({ items }) => items.length > 0);
  await until("the first one is answered", () => done.includes(600));
});

test("the answer to an extension may stop the handler", async (t) => {
  for (const answer of [
    { status: AckStatus.LEASE_LOST },
    { status: AckStatus.APPLIED, cancel: CancelReason.REQUESTED },
  ]) {
    const server = await scripted(t);
    server.answerAck = (request) => {
      const response = allApplied(request);
      if (request.items[0]?.outcome?.$case === "extend") Object.assign(response.results[0] as object, answer);
      return response;
    };
    let stopped = "";
    await working(server, async (job) => {
      await job.extend(600);
      stopped = job.signal.reason.reason;
      job.signal.throwIfAborted();
    });
    (await server.opened()).deliver(delivery("h-1"));
    // Settled all the same: that is what returns the credit.
    assert.equal(await server.end("h-1"), "release");
    assert.equal(stopped, answer.cancel ? "requested" : "lease_lost");
  }
});

test("a checkpoint arrives before the failure that comes right after it", async (t) => {
  const server = await scripted(t);
  await working(server, async (job) => {
    await job.progress(0.1, "", { checkpoint: { page: 1 } });
    await job.progress(0.2, "", { checkpoint: { page: 2 } });
    await job.progress(0.3, "and on");
    throw new Error("page 3");
  });
  const stream = await server.opened();
  for (const handle of ["h-1", "h-2"]) {
    stream.deliver(delivery(handle));
    assert.equal(await server.end(handle), "fail");
    assert.equal(left(server, handle).at(-1), '{"page":2}');
  }
});

test("a word without a checkpoint does not take back one that waits", async (t) => {
  const server = await scripted(t);
  const { open, answer } = gate();
  server.answerAck = answer;
  await working(server, async (job) => {
    // While an Ack is on its way, all that follows waits for the next one.
    for (const checkpoint of [undefined, "kept", undefined]) {
      await job.progress(0.1, "", { checkpoint });
      await pause(0.5);
    }
    open();
    throw new Error("now");
  });
  (await server.opened()).deliver(delivery("h-1"));
  await server.settled("h-1");
  assert.deepEqual(left(server, "h-1"), ['"kept"']);
});

test("what is given back when the worker stops keeps its checkpoint", async (t) => {
  const server = await scripted(t);
  const held = new Held();
  const worker = await working(server, async (job) => {
    try {
      await held.handle(job);
    } finally {
      await job.progress(0.5, "", { checkpoint: [1, 2] });
    }
  });
  (await server.opened()).deliver(delivery("h-1"));
  await held.started("h-1");
  await worker.stop({ now: true });
  assert.equal(await server.end("h-1"), "release");
  assert.deepEqual(left(server, "h-1"), ["[1,2]"]);
});

test("progress that is no number is unknown or the handler's mistake, and costs no checkpoint", async (t) => {
  const server = await scripted(t);
  await working(server, async (job) => {
    await assert.rejects(job.progress("half" as never), /the share is a number from 0 to 1, or null, not 'half'/);
    await assert.rejects(job.progress(0.5, null as never), /the note is a text, not null/);
    await job.progress(undefined as never, "on", { checkpoint: 1 });
    throw new Error("broken");
  });
  (await server.opened()).deliver(delivery("h-1"));
  const end = await server.settled("h-1");
  assert.equal(end.$case === "fail" && end.value.message, "broken");
  const said = server.acks.flatMap(({ items }) => items).flatMap(({ outcome }) => outcome ?? []);
  const [progress] = said.flatMap((outcome) => (outcome.$case === "extend" ? [outcome.value.progress] : []));
  assert.deepEqual(progress, { fraction: undefined, note: "on", checkpoint: "1" });
});

test("a checkpoint that is too large or no JSON is the handler's mistake", async (t) => {
  const server = await scripted(t);
  await working(server, async (job) => {
    await job.progress(0.5, "", { checkpoint: "x".repeat(64 * 1024 - 2) });
    await assert.rejects(job.progress(0.5, "", { checkpoint: { n: 1n } }), /not JSON/);
    await job.progress(0.5, "", { checkpoint: "x".repeat(64 * 1024 - 1) });
  });
  (await server.opened()).deliver(delivery("h-1"));
  const end = await server.settled("h-1");
  assert.ok(end.$case === "fail");
  assert.match(end.value.message, /at most 65536 are taken/);
  assert.deepEqual(
    left(server, "h-1").map((text) => text.length),
    [64 * 1024],
  );
});
