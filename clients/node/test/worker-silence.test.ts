// What a worker does when its peer is gone without a word: no FIN, no RST, and nothing that answers any more.

import assert from "node:assert/strict";
import { connect, createServer, type Server, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { type HandlerOptions, Worker } from "jobwire";
import { delivery, Held, type ScriptedServer, type Stream, scripted, until } from "./scripted.js";

/** A network between a worker and the server. */
class Network {
  /** How many connections there have been. */
  connections = 0;
  /** The worker's ends of connections whose other ends it will never hear of again. */
  readonly forgotten: Socket[] = [];
  readonly #present = new Set<[Socket, Socket]>();
  readonly #ends: Socket[] = [];
  readonly #listener: Server;

  constructor(server: ScriptedServer) {
    const [host, port] = server.address.split(":");
    // Half-open: an end is not told of the other one's.
    this.#listener = createServer({ allowHalfOpen: true }, (client) => {
      this.connections += 1;
      const upstream = connect({ host, port: Number(port), allowHalfOpen: true });
      for (const end of [client, upstream]) {
        end.on("error", () => {});
        this.#ends.push(end);
      }
      client.pipe(upstream).pipe(client);
      this.#present.add([client, upstream]);
    });
  }

  async start(): Promise<string> {
    await new Promise<void>((resolve) => this.#listener.listen(0, "127.0.0.1", resolve));
    return `127.0.0.1:${(this.#listener.address() as { port: number }).port}`;
  }

  /** Present connections stay open, but their ends never hear of each other again; new ones are not touched. */
  forget(): void {
    for (const [client, upstream] of this.#present) {
      client.unpipe(upstream).resume();
      upstream.unpipe(client).resume();
      this.forgotten.push(client);
    }
    this.#present.clear();
  }

  stop(): void {
    this.#listener.close();
    for (const end of this.#ends) end.destroy();
  }
}

/** A worker that finds its server through the network, with a handler for each of the queues `q-0`, `q-1`, … */
async function working(t: TestContext, server: ScriptedServer, ...handlers: Held[]): Promise<Network> {
  const network = new Network(server);
  t.after(() => network.stop());
  const worker = new Worker(await network.start());
  const options: HandlerOptions = { concurrency: 50 };
  for (const [number, { handle }] of handlers.entries()) worker.handler(`q-${number}`, options, handle);
  server.workers.push(worker);
  await worker.start();
  return network;
}

type Terms = Parameters<Stream["open"]>[1];

/** The next stream, once the worker knows its terms and runs these deliveries. */
async function atWork(server: ScriptedServer, held: Held, handles: string[], terms?: Terms): Promise<Stream> {
  const stream = await server.opened("s-1", terms);
  stream.deliver(...handles.map((handle) => delivery(handle)));
  for (const handle of handles) await held.started(handle);
  return stream;
}

test("handlers notice nothing, and what was on its way comes again", async (t) => {
  const server = await scripted(t);
  const held = new Held();
  const network = await working(t, server, held);
  const first = await atWork(server, held, ["h-1", "h-2"], { heartbeat: 4, grace: 12 });
  network.forget();
  held.release("h-1");
  const { request } = await server.opened();
  assert.equal(request.resume?.sessionId, "s-1");
  // The Ack of the other one may have come before it, over the new connection.
  assert.ok(request.resume.held.includes("h-2"));
  assert.ok(!first.left, "the server was told, so this test tries nothing");
  assert.equal(await server.end("h-1"), "complete");
  held.release("h-2");
  assert.equal(await server.end("h-2"), "complete");
  assert.equal(held.stopped.size, 0);
  assert.equal(network.connections, 2);
});

test("all sessions of a worker go over to one new connection", async (t) => {
  const server = await scripted(t);
  const handlers = [new Held(), new Held()];
  const network = await working(t, server, ...handlers);
  // Only one of them falls silent; the other resumes since it shares the connection.
  for (const [session, grace] of [
    ["s-1", 12],
    ["s-2", 3600],
  ] as const) {
    const stream = await server.opened(session, { heartbeat: grace / 3, grace });
    stream.deliver(delivery(`h-of-${session}`, null, { queue: stream.request.queues[0] as string }));
  }
  for (const stream of [await server.stream(), await server.stream()]) {
    stream.open();
    const [handle = ""] = stream.request.resume?.held ?? [];
    handlers[Number(stream.request.queues[0]?.at(-1))]?.release(handle);
    assert.equal(await server.end(handle), "complete");
  }
  assert.deepEqual(
    handlers.map(({ stopped }) => stopped.size),
    [0, 0],
  );
  assert.equal(network.connections, 2);
});

test("connections that were left are closed", async (t) => {
  const server = await scripted(t);
  const held = new Held();
  const network = await working(t, server, held);
  for (let n = 0; n < 10; n += 1) {
    await atWork(server, held, [`h-${n}`], { heartbeat: 0.1, grace: 0.3 });
    network.forget();
  }
  await server.opened();
  // As far as Node goes: the socket itself is free when the peer answers this, or the system gives it up.
  await until("the worker has said its last word on all", () => network.forgotten.every((end) => end.readableEnded));
  assert.equal(network.forgotten.length, network.connections - 1);
});
