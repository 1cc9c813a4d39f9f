// Jobwire's side of the protocol, played by script: a real gRPC server on a loopback port that does what a test says.
//
// Every Subscribe becomes a Stream in the test's hands. Every Ack is kept, and answered by a function that the test may
// replace.

import type { TestContext } from "node:test";
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
  status,
} from "@grpc/grpc-js";
import { type Handler, type HandlerOptions, type Logger, Worker, type WorkerOptions } from "jobwire";
import {
  type AckItem,
  type AckRequest,
  AckResponse,
  AckStatus,
  CancelReason,
  Delivery,
  QueueServiceService,
  SessionOpened,
  type SubscribeRequest,
  SubscribeResponse,
} from "jobwire/v1";
import { BadRequest, ErrorInfo, RetryInfo, Status } from "#src/generated/details/status.js";
import { toDuration } from "#src/wire.js";

/** After how many seconds a wait of a test has failed. */
export const PATIENCE = 60;

/** A call that ends with this status. */
export class Refusal extends Error {
  readonly code: status;
  readonly details: string;
  readonly metadata = new Metadata();

  constructor(code: status, { reason = "", text = "refused by script", retryAfter, field }: RefusalTerms = {}) {
    super(text);
    this.code = code;
    this.details = text;
    const details: { typeUrl: string; value: Buffer }[] = [];
    const pack = (kind: string, bytes: Uint8Array) =>
      details.push({ typeUrl: `type.googleapis.com/google.rpc.${kind}`, value: Buffer.from(bytes) });
    if (reason) pack("ErrorInfo", ErrorInfo.encode({ reason, domain: "jobwire", metadata: {} }).finish());
    if (retryAfter !== undefined) pack("RetryInfo", RetryInfo.encode({ retryDelay: toDuration(retryAfter) }).finish());
    if (field) {
      pack("BadRequest", BadRequest.encode({ fieldViolations: [{ field, description: text }] }).finish());
    }
    const packed = Status.encode(Status.fromPartial({ code, message: text, details })).finish();
    if (details.length > 0) this.metadata.set("grpc-status-details-bin", Buffer.from(packed));
  }
}

interface RefusalTerms {
  reason?: string;
  text?: string;
  retryAfter?: number;
  field?: string;
}

/** What a client sees when the connection breaks. */
export const cut = () => new Refusal(status.UNAVAILABLE);

/** A delivery of the job `job-of-<handle>` from queue `q`. */
export function delivery(handle: string, data: unknown = null, fields: Partial<Delivery> = {}): Delivery {
  return Delivery.fromPartial({
    handle,
    queue: "q",
    jobId: `job-of-${handle}`,
    data: JSON.stringify(data),
    attempt: 1,
    retryLimit: 2,
    createTime: new Date("2026-01-02T00:00:00Z"),
    expireIn: { seconds: 900, nanos: 0 },
    ...fields,
  });
}

/** Fails when something takes longer than a test has patience. */
export async function within<Value>(what: string, promise: Promise<Value>, seconds = PATIENCE): Promise<Value> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${seconds} s for ${what}`)), seconds * 1000);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Waits until something holds. */
export async function until(what: string, holds: () => boolean): Promise<void> {
  const end = performance.now() + PATIENCE * 1000;
  while (!holds()) {
    if (performance.now() > end) throw new Error(`waited ${PATIENCE} s until ${what}`);
    await pause(0.005);
  }
}

export function pause(seconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}

type Event = NonNullable<SubscribeResponse["event"]>;

/** One Subscribe call in the hands of the test. */
export class Stream {
  readonly request: SubscribeRequest;
  /** Whether the call is over, whoever ended it. */
  left = false;
  readonly #call: ServerWritableStream<SubscribeRequest, SubscribeResponse>;
  #sequence = 0;

  constructor(call: ServerWritableStream<SubscribeRequest, SubscribeResponse>) {
    this.request = call.request;
    this.#call = call;
    for (const end of ["cancelled", "close", "finish"]) {
      call.on(end, () => {
        this.left = true;
      });
    }
  }

  /** Sends an event; returns its sequence. */
  send(event: Event | undefined): number {
    this.#sequence += 1;
    this.#call.write(SubscribeResponse.fromPartial({ sequence: this.#sequence, event } as SubscribeResponse));
    return this.#sequence;
  }

  /** Says `opened`, as a resume does where the client asked for one. */
  open(session = "s-1", { heartbeat = 5, grace = 15, lost = [] as string[] } = {}): void {
    const { resume, maxInFlight = 1 } = this.request;
    this.send({
      $case: "opened",
      value: SessionOpened.fromPartial({
        sessionId: resume?.sessionId ?? session,
        epoch: resume?.epoch ?? 1,
        resumed: resume !== undefined,
        lost,
        maxInFlight,
        heartbeatInterval: toDuration(heartbeat),
        resumeGrace: toDuration(grace),
        serverVersion: "1.2.3",
      }),
    });
  }

  deliver(...deliveries: Delivery[]): number {
    return this.send({ $case: "deliveries", value: { deliveries } });
  }

  heartbeat(): number {
    return this.send({ $case: "heartbeat", value: {} });
  }

  cancel(handle: string, reason: CancelReason = CancelReason.REQUESTED): void {
    this.send({ $case: "cancellation", value: { handle, jobId: `job-of-${handle}`, reason, grace: toDuration(30) } });
  }

  quiet(): void {
    this.send({ $case: "quiet", value: {} });
  }

  /** Says `draining`, and ends the stream in order. */
  drain({ resumeWithin = 300, reconnectDelay = 0 } = {}): void {
    this.send({
      $case: "draining",
      value: { resumeWithin: toDuration(resumeWithin), reconnectDelay: toDuration(reconnectDelay) },
    });
    this.end();
  }

  /** Ends the stream: in order, or with a status. */
  end(refusal?: Refusal): void {
    this.left = true;
    if (refusal === undefined) this.#call.end();
    else this.#call.emit("error", refusal);
  }
}

type AckAnswer = (request: AckRequest) => AckResponse | Promise<AckResponse>;

/** Serves on a loopback port; stopped and started again it keeps its address. */
export class ScriptedServer {
  /** Every Ack so far. */
  readonly acks: AckRequest[] = [];
  answerAck: AckAnswer = allApplied;
  /** How many Acks ended without an answer, as their time was up or the worker left them. */
  givenUp = 0;
  /** Those that work for it, and are stopped at once when the test ends. */
  readonly workers: Worker[] = [];
  #port = 0;
  #server: Server | undefined;
  readonly #streams: Stream[] = [];

  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }

  /** Serves, at the same address as before. */
  async start(): Promise<void> {
    const server = new Server();
    server.addService(QueueServiceService, {
      subscribe: (call: ServerWritableStream<SubscribeRequest, SubscribeResponse>) => {
        this.#streams.push(new Stream(call));
      },
      ack: async (
        call: ServerUnaryCall<AckRequest, AckResponse>,
        answer: (failure: Partial<Refusal> | null, response?: AckResponse) => void,
      ) => {
        const { request } = call;
        let answered = false;
        call.on("cancelled", () => {
          // grpc-js says so of calls that ended well too.
          if (!answered) this.givenUp += 1;
        });
        this.acks.push(request);
        try {
          const response = await this.answerAck(request);
          answered = true;
          answer(null, response);
        } catch (refusal) {
          answered = true;
          answer(refusal as Refusal);
        }
      },
    });
    this.#port = await new Promise<number>((resolve, reject) => {
      server.bindAsync(this.address, ServerCredentials.createInsecure(), (error, port) =>
        error === null ? resolve(port) : reject(error),
      );
    });
    this.#server = server;
  }

  /** Is gone at once, streams and all. */
  stop(): void {
    this.#server?.forceShutdown();
    this.#server = undefined;
  }

  /** The next Subscribe call. */
  async stream(): Promise<Stream> {
    await until("a Subscribe call came", () => this.#streams.length > 0);
    return this.#streams.shift() as Stream;
  }

  /** The next Subscribe call, answered by `opened`. */
  async opened(session?: string, terms?: Parameters<Stream["open"]>[1]): Promise<Stream> {
    const stream = await this.stream();
    stream.open(session, terms);
    return stream;
  }

  /** Whether no Subscribe call waits to be taken. */
  get noStream(): boolean {
    return this.#streams.length === 0;
  }

  /** The first Ack that is wanted, whether it came already or is yet to come. */
  async ack(wanted: (ack: AckRequest) => boolean, from = 0): Promise<AckRequest> {
    await until(`an Ack came as ${wanted}`, () => this.acks.slice(from).some(wanted));
    return this.acks.slice(from).find(wanted) as AckRequest;
  }

  /** How a delivery was settled first. */
  async settled(handle: string): Promise<NonNullable<AckItem["outcome"]>> {
    const settles = (item: AckItem) => item.handle === handle && item.outcome?.$case !== "extend";
    const ack = await this.ack(({ items }) => items.some(settles));
    return ack.items.find(settles)?.outcome as NonNullable<AckItem["outcome"]>;
  }

  /** How a delivery was settled first, in a word. */
  async end(handle: string): Promise<string> {
    return (await this.settled(handle)).$case;
  }

  /** The handles of each Ack with statements. */
  get withItems(): string[][] {
    return this.acks.filter(({ items }) => items.length > 0).map(({ items }) => items.map(({ handle }) => handle));
  }
}

/** Every statement counts. */
export function allApplied({ items }: AckRequest): AckResponse {
  return AckResponse.fromPartial({ results: items.map(() => ({ status: AckStatus.APPLIED })), sessionAlive: true });
}

/** A server of its own for a test. */
export async function scripted(t: TestContext): Promise<ScriptedServer> {
  const server = new ScriptedServer();
  await server.start();
  t.after(async () => {
    for (const worker of server.workers) await worker.stop({ now: true }).catch(() => {});
    server.stop();
  });
  return server;
}

/** Keeps what a worker says. */
export class Lines implements Logger {
  readonly lines: string[] = [];
  readonly warnings: string[] = [];

  debug(message: string): void {
    this.lines.push(message);
  }

  info(message: string): void {
    this.lines.push(message);
  }

  warn(message: string): void {
    this.lines.push(message);
    this.warnings.push(message);
  }

  error(message: string): void {
    this.warn(message);
  }
}

/** A started worker on queue `q`. */
export async function working(
  server: ScriptedServer,
  // biome-ignore lint/suspicious/noExplicitAny: any handler
  handle: Handler<any, any>,
  { logger = new Lines(), concurrency = 1, ...options }: WorkerOptions & HandlerOptions = {},
): Promise<Worker> {
  const worker = new Worker(server.address, { name: "tester", logger, ...options });
  worker.handler("q", { concurrency }, handle);
  server.workers.push(worker);
  await worker.start();
  return worker;
}

/** A handler whose runs last until the test lets them go, or they are told to stop. */
export class Held {
  /** How often each job was run. */
  readonly runs = new Map<string, number>();
  /** The jobs that were told to stop, and why. */
  readonly stopped = new Map<string, string>();
  readonly #ends = new Map<string, () => void>();

  readonly handle: Handler = (job) => {
    this.runs.set(job.id, (this.runs.get(job.id) ?? 0) + 1);
    return new Promise((resolve, reject) => {
      this.#ends.set(job.id, () => resolve("done"));
      job.signal.addEventListener("abort", () => {
        this.stopped.set(job.id, job.signal.reason.reason);
        reject(job.signal.reason);
      });
    });
  };

  started(...handles: string[]): Promise<void> {
    return until(`${handles} are started`, () => handles.every((handle) => this.runs.has(`job-of-${handle}`)));
  }

  release(handle: string): void {
    this.end(`job-of-${handle}`);
  }

  /** Lets the run of a job go. */
  end(jobId: string): void {
    this.#ends.get(jobId)?.();
  }
}
