// The worker: handlers by queue, one connection, and an orderly end.

import { hostname } from "node:os";
import { type BatchHandler, BatchRunner } from "./batching.js";
import { Connection, type Tls, type Token } from "./connection.js";
import { SubscribeRequest } from "./generated/jobwire/v1/queue_service.js";
import { Lifetime } from "./lifetime.js";
import { defaultLogger, harmless, type Logger } from "./logging.js";
import { type Handler, type Runner, SingleRunner } from "./running.js";
import { type QueueShare, type Queues, sharesOf } from "./shares.js";
import { toDuration } from "./wire.js";

const MOST_AT_ONCE = 1000;
const LONGEST_WAIT = 60;

/** How a worker presents itself, and how it ends. */
export interface WorkerOptions {
  /** For people and logs, at most 200 characters. Default: host name and process id. */
  name?: string | undefined;
  /**
   * How long handlers may finish when the worker stops, in seconds, default 25. What still runs then is told to stop and given
   * back, which takes up to 4 s more; keep the sum below what your platform grants after SIGTERM.
   */
  stopGrace?: number | undefined;
  /** Speak TLS: true for the authorities that Node knows, or with PEM texts. Default: no encryption. */
  tls?: boolean | Tls | undefined;
  /** Sent with each call; a function is asked for it each time. */
  token?: Token | undefined;
  /** How often the server asks for a sign of life, 1 s to 5 minutes, default 5 s. */
  heartbeatInterval?: number | undefined;
  /** How long jobs stay with the worker when its connection breaks, 0 s to 15 s, default 15 s. */
  resumeGrace?: number | undefined;
  /** Default: warnings and errors go to the console. */
  logger?: Logger | undefined;
}

/** How a handler takes jobs. */
export interface HandlerOptions {
  /** How many jobs may run at once, 1 to 1000, of all its queues together; default 1. */
  concurrency?: number | undefined;
}

/** How a handler takes batches of jobs. */
export interface BatchOptions {
  /** How many jobs a call takes at most, 1 to 1000. */
  size: number;
  /** How long the first job of a call waits for further ones, 0 s to 60 s, default 0.1 s; of its time limit too. */
  wait?: number | undefined;
  /** How many jobs may run at once, in whatever number of calls. Default: as many as one call takes. */
  concurrency?: number | undefined;
}

/** What a signal is told to: one listener for all workers of the process, since Node warns of a leak at the eleventh. */
const running = new Set<(signal: NodeJS.Signals) => void>();

function tellAll(signal: NodeJS.Signals): void {
  for (const told of running) told(signal);
}

interface Registration {
  shares: readonly QueueShare[];
  concurrency: number;
  /** Makes what one life of the worker runs the handler with. */
  runner(): Runner;
}

/**
 * Runs handlers on the jobs of their queues.
 *
 * ```ts
 * const worker = new Worker("127.0.0.1:50051");
 * worker.handler<{ to: string }>("mail", { concurrency: 10 }, async (job) => send(job.data.to, { signal: job.signal }));
 * await worker.run();
 * ```
 *
 * Each handler has a session of its own, so its concurrency is exact. When the connection breaks or the server restarts,
 * handlers go on, and the sessions are resumed. A handler that throws fails its job and no more; only what it throws in a
 * callback, or in a promise that it does not await, ends the process as in any program. All handlers run in the one event loop:
 * while one computes without a pause no heartbeat is answered, and after three of them the worker counts as lost.
 */
export class Worker {
  /** The worker's name, as shown with its jobs. */
  readonly name: string;
  readonly #target: string;
  readonly #options: WorkerOptions;
  readonly #stopGrace: number;
  readonly #heartbeatInterval: number;
  readonly #request: SubscribeRequest;
  readonly #logger: Logger;
  readonly #registrations: Registration[] = [];
  #lifetime: Lifetime | undefined;

  /** @param target host and port of Jobwire. */
  constructor(target: string, options: WorkerOptions = {}) {
    const { name, stopGrace = 25, heartbeatInterval = 5, resumeGrace = 15, logger = defaultLogger } = options;
    if (typeof stopGrace !== "number" || !(stopGrace >= 0)) {
      throw new RangeError(`stopGrace ${stopGrace}: it must be a number of seconds, 0 or more`);
    }
    for (const [what, span] of Object.entries({ heartbeatInterval, resumeGrace })) {
      if (!Number.isFinite(span)) throw new RangeError(`${what} ${span}: it must be a number of seconds`);
    }
    this.name = name ?? `${hostname()}:${process.pid}`;
    this.#target = target;
    this.#options = options;
    this.#stopGrace = stopGrace;
    this.#heartbeatInterval = heartbeatInterval;
    this.#logger = harmless(logger);
    this.#request = SubscribeRequest.fromPartial({
      worker: this.name,
      heartbeatInterval: toDuration(heartbeatInterval),
      resumeGrace: toDuration(resumeGrace),
    });
  }

  /**
   * Registers a function as the handler of queues, before the worker runs; one handler each.
   *
   * The function takes a Job and returns what JSON can carry, or nothing: that is the job's output. It must be idempotent,
   * since a job may run again after a lost connection. It may throw FailForGood, RetryIn or ReleaseJob; anything else that it
   * throws fails the run, which is tried again as the job's options say. When `job.signal` is aborted it should end soon, by
   * throwing what the signal makes it throw.
   *
   * @param queues the queue, or several whose jobs it runs in the same places (`job.queue` says which). It has them in equal
   *   parts, or by the weights of their QueueShares.
   * @throws {Error} the registration makes no sense; the message says why.
   */
  handler<Data = unknown, Output = unknown>(queues: Queues, handle: Handler<Data, Output>): this;
  handler<Data = unknown, Output = unknown>(
    queues: Queues,
    options: HandlerOptions,
    handle: Handler<Data, Output>,
  ): this;
  handler<Data, Output>(
    queues: Queues,
    ...rest: [Handler<Data, Output>] | [HandlerOptions, Handler<Data, Output>]
  ): this {
    const [options, handle] = rest.length === 2 ? rest : [{}, rest[0] as Handler<Data, Output>];
    const runner = () => new SingleRunner(handle as Handler);
    return this.#register(queues, options?.concurrency ?? 1, handle, runner);
  }

  /**
   * Registers a function that takes a list of jobs, and settles each on its own; else as `handler`.
   *
   * The function calls `complete`, `fail` or `release` of each job as soon as it knows what became of it. Jobs that it has not
   * settled when it returns are completed; when it throws, they fail with what it threw, just as a single job would. A job that
   * is to stop (its `signal`) and is not settled is never completed. The function's own signal, its second argument, is aborted
   * when all that it has not settled is to stop.
   *
   * @throws {Error} the registration makes no sense; the message says why.
   */
  batchHandler<Data = unknown, Output = unknown>(
    queues: Queues,
    options: BatchOptions,
    handle: BatchHandler<Data, Output>,
  ): this {
    const { size, wait = 0.1, concurrency = size } = options;
    const names = namesOf(sharesOf(queues));
    checkNumber(size, "size", names);
    if (!(wait >= 0 && wait <= LONGEST_WAIT)) {
      throw new RangeError(`wait ${wait} s of queue ${names} must be between 0 s and ${LONGEST_WAIT} s`);
    }
    const runner = () => new BatchRunner(handle as BatchHandler, size, wait, this.#logger);
    return this.#register(queues, concurrency, handle, runner);
  }

  /**
   * Works until SIGTERM, SIGINT or `stop`, then ends in order; a second signal cuts the grace short. It returns as well when an
   * operator has asked the worker to leave, and what it ran is finished.
   *
   * What a handler that did not stop still does keeps the process alive after that: end your program with `process.exit()` if
   * that may be.
   *
   * @throws {JobwireError} the server refuses the name of a queue, the worker's terms or its credentials.
   */
  async run(): Promise<void> {
    const lifetime = this.#begin();
    const signalled = (signal: NodeJS.Signals) => {
      this.#logger.info(`${signal}: ${lifetime.stopping ? "giving back what runs" : "finishing what runs"}`);
      lifetime.stop(lifetime.stopping);
    };
    if (running.size === 0) process.on("SIGTERM", tellAll).on("SIGINT", tellAll);
    running.add(signalled);
    try {
      await this.#end(lifetime);
    } finally {
      running.delete(signalled);
      if (running.size === 0) process.off("SIGTERM", tellAll).off("SIGINT", tellAll);
    }
  }

  /**
   * Starts to work in the background; the signals are left to you. Should the worker have to end, that is logged, and `stop`
   * rejects.
   */
  async start(): Promise<void> {
    const lifetime = this.#begin();
    lifetime.done.catch((error) => this.#logger.error(`the worker has ended: ${error}`));
  }

  /**
   * Stops in order, and is done when the worker has ended. Calling it twice, or when nothing runs, is fine.
   *
   * @param options.now without the grace: running handlers are told to stop at once, and their jobs given back.
   * @throws {JobwireError} what `run` would reject with.
   */
  stop(options: { now?: boolean } = {}): Promise<void> {
    const lifetime = this.#lifetime;
    if (lifetime === undefined) return Promise.resolve();
    lifetime.stop(options.now ?? false);
    const ended = this.#end(lifetime);
    // Who does not wait for it should not see the process end for it.
    ended.catch(() => {});
    return ended;
  }

  /** Whether the worker is about to end. */
  get stopping(): boolean {
    return this.#lifetime?.stopping ?? false;
  }

  #register(queues: Queues, concurrency: number, handle: unknown, runner: () => Runner): this {
    const shares = sharesOf(queues);
    if (shares.length === 0) throw new TypeError("a handler needs a queue");
    const known = new Set(this.#registrations.flatMap((registration) => registration.shares.map(({ queue }) => queue)));
    for (const { queue } of shares) {
      if (known.has(queue)) {
        throw new Error(`queue '${queue}' has a handler already; to run more jobs at once, raise its concurrency`);
      }
      known.add(queue);
    }
    if (this.#lifetime !== undefined) throw new Error("this worker runs already: register its handlers before");
    checkNumber(concurrency, "concurrency", namesOf(shares));
    if (typeof handle !== "function") throw new TypeError(`the handler of queue ${namesOf(shares)} is not a function`);
    this.#registrations.push({ shares, concurrency, runner });
    return this;
  }

  #begin(): Lifetime {
    if (this.#registrations.length === 0) {
      throw new Error("this worker has no handlers: register one with worker.handler(queue, …)");
    }
    if (this.#lifetime !== undefined) throw new Error("this worker runs already");
    const { tls, token } = this.#options;
    this.#lifetime = new Lifetime({
      // With pick_first Acks go to the replica that serves the streams.
      connection: new Connection(this.#target, { tls, token, balancing: "pick_first" }),
      request: this.#request,
      posts: this.#registrations.map(({ shares, concurrency, runner }) => ({ shares, concurrency, runner: runner() })),
      stopGrace: this.#stopGrace,
      heartbeatInterval: this.#heartbeatInterval,
      logger: this.#logger,
    });
    return this.#lifetime;
  }

  async #end(lifetime: Lifetime): Promise<void> {
    try {
      await lifetime.done;
    } finally {
      if (this.#lifetime === lifetime) this.#lifetime = undefined;
    }
  }
}

function namesOf(shares: readonly QueueShare[]): string {
  return shares.map(({ queue }) => `'${queue}'`).join(", ");
}

function checkNumber(number: number, what: string, names: string): void {
  if (!Number.isInteger(number) || number < 1 || number > MOST_AT_ONCE) {
    throw new RangeError(`${what} ${number} of queue ${names} must be a whole number between 1 and ${MOST_AT_ONCE}`);
  }
}
