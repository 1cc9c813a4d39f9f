// `jobQueue.push`, `jobQueue.process`, `jobQueue.getJob`: the shape that many backends have wrapped pg-boss in, so that their
// modules change one import; and pg-boss's `cancel`, `schedule`, `unschedule` and `getQueueSize`. Whatever it cannot say, `Client`
// and `Worker` of `jobwire` can.

import { readFileSync } from "node:fs";
import { Client } from "./client.js";
import type { Tls, Token } from "./connection.js";
import { InvalidArgument, NotFound } from "./errors.js";
import { CancelStatus } from "./generated/jobwire/v1/admin_service.js";
import type { Job } from "./job.js";
import { defaultLogger, type Logger } from "./logging.js";
import type { JobInfo, JobState, Progress } from "./model.js";
import { handlerOptionsFrom, type ProcessOptions, type PushOptions, termsFrom } from "./push-options.js";
import { type ScheduleOptions, scheduleFrom, scheduleName } from "./schedule-options.js";
import { MAX_CALL_ITEMS } from "./wire.js";
import { Worker } from "./worker.js";

export type { ProcessOptions, PushOptions } from "./push-options.js";
export type { ScheduleOptions } from "./schedule-options.js";

/** With whom a JobQueue speaks, and how it ends. What is left out is read from the environment at the first use. */
export interface JobQueueOptions {
  /** Host and port. Default: JOBWIRE_SERVER, or 127.0.0.1:50051. */
  target?: string | undefined;
  /** Default: JOBWIRE_TOKEN, if it is set. */
  token?: Token | undefined;
  /** Default: TLS by the authorities in the PEM file JOBWIRE_CA_FILE, if it is set, else none. */
  tls?: boolean | Tls | undefined;
  /** For each call, in seconds, repetitions included. Default 10. */
  timeout?: number | undefined;
  /** How long handlers may finish at the stop, in seconds. Default 25. */
  stopGrace?: number | undefined;
  /** Whether SIGTERM and SIGINT stop it once it processes jobs. Default true. */
  handleSignals?: boolean | undefined;
  /** Default: warnings and errors go to the console. */
  logger?: Logger | undefined;
}

/** A job as its handler sees it, in pg-boss's words. */
export interface ProcessedJob<Data = unknown> {
  id: string;
  /** The queue. */
  name: string;
  data: Data;
  /** Aborted when the run is to stop; its reason says why. */
  signal: AbortSignal;
  priority: number;
  retryCount: number;
  retryLimit: number;
  createdOn: Date;
  /** What the last attempt left for this one; null if nothing. */
  checkpoint: unknown;
  /** Says how far the job is: a share from 0 to 1, a line for people, and what the next attempt is to know should this one not finish. */
  progress(fraction: number | null, note?: string, options?: { checkpoint?: unknown }): Promise<void>;
  /** Moves the run's time limit to so many seconds from now. */
  extend(seconds: number): Promise<void>;
}

/** A function that runs one job; what it returns is the job's output. */
export type ProcessHandler<Data = unknown, Output = unknown> = (job: ProcessedJob<Data>) => Promise<Output> | Output;

/** A job as it stands, in pg-boss's words. */
export interface QueuedJob<Data = unknown, Output = unknown> {
  id: string;
  /** The queue. */
  name: string;
  data: Data;
  state: JobState;
  /** What the handler returned; of a job that failed, its last error: `{ name, message, stack }`. Null if nothing. */
  output: Output | { name: string; message: string; stack: string } | null;
  /** What the handler last said of its work; null if nothing. */
  progress: Progress | null;
  priority: number;
  retryCount: number;
  retryLimit: number;
  singletonKey: string | null;
  startAfter: Date;
  createdOn: Date;
  startedOn: Date | null;
  completedOn: Date | null;
}

const CANCELLED: ReadonlySet<CancelStatus> = new Set([CancelStatus.CANCELLED, CancelStatus.REQUESTED]);

/** Publishes, processes, cancels and schedules jobs; connects at the first use. */
export class JobQueue {
  readonly #options: JobQueueOptions;
  readonly #workers: Worker[] = [];
  readonly #signalled = (signal: NodeJS.Signals) => void this.#stopBy(signal);
  #client: Client | undefined;
  #stopped: Promise<void> | undefined;

  constructor(options: JobQueueOptions = {}) {
    this.#options = options;
  }

  /**
   * Stores a job; when this resolves, it is on disk. Returns its id, or null if it was not stored: its key, or another job of its id,
   * keeps it away. Rejects with a JobwireError.
   */
  async push<Data = unknown>(name: string, data: Data, options: PushOptions = {}): Promise<string | null> {
    const { created, jobId, reason, dataDiffers } = await this.#opened().publish(name, data, termsFrom(options));
    // The same job under the same id is most likely this call, repeated after its answer was lost.
    return created || (reason === "duplicate_id" && !dataDiffers) ? jobId : null;
  }

  /**
   * Runs a function on the jobs of a queue until `stop`, or SIGTERM. It may throw FailForGood, RetryIn and ReleaseJob of `jobwire`;
   * whatever else it throws fails the run, which is tried again as the job's options say.
   */
  process<Data = unknown, Output = unknown>(name: string, handler: ProcessHandler<Data, Output>): Promise<void>;
  process<Data = unknown, Output = unknown>(
    name: string,
    options: ProcessOptions,
    handler: ProcessHandler<Data, Output>,
  ): Promise<void>;
  async process<Data, Output>(
    name: string,
    ...rest: [ProcessHandler<Data, Output>] | [ProcessOptions, ProcessHandler<Data, Output>]
  ): Promise<void> {
    this.#check();
    const [options, handler] = rest.length === 2 ? rest : [{}, rest[0]];
    const { stopGrace, logger = defaultLogger } = this.#options;
    // A worker takes no further handler once it runs. Several in one process share a connection.
    const worker = new Worker(this.#target(), { ...this.#security(), stopGrace, logger });
    if (typeof handler !== "function") {
      throw new InvalidArgument(`process(name, options, handler): the handler is a function, not ${typeof handler}`);
    }
    worker.handler<Data, Output>(name, handlerOptionsFrom(options), (job) => handler(processed(job)));
    await worker.start();
    if (this.#workers.push(worker) === 1 && this.#options.handleSignals !== false) {
      process.on("SIGTERM", this.#signalled).on("SIGINT", this.#signalled);
    }
  }

  /** Returns a job, live or finished, or null if there is none of this id. With `name` it is looked for in that queue only. */
  async getJob<Data = unknown, Output = unknown>(
    id: string,
    options: { name?: string } = {},
  ): Promise<QueuedJob<Data, Output> | null> {
    if (typeof options !== "object" || options === null) {
      // As pg-boss has it in getJobById(name, id): no job would be found, in silence.
      throw new InvalidArgument("getJob(id, { name }): the id comes first, the queue is an option");
    }
    try {
      return queuedJobFrom(await this.#opened().getJob<Data, Output>(id, { queue: options.name ?? "" }));
    } catch (error) {
      const noId = error instanceof InvalidArgument && error.fieldViolations.some(({ field }) => field === "job_id");
      if (error instanceof NotFound || noId) {
        return null;
      }
      throw error;
    }
  }

  /**
   * Cancels a job, or several of one queue. One that waits is cancelled at once; the handler of one that runs is told by its
   * `signal`, and the job is cancelled when it ends, unless it completes first. Returns how many of them are cancelled or told:
   * what had finished, or is not there, is not counted. Rejects with NotFound if there is no such queue.
   */
  cancel(id: string): Promise<number>;
  cancel(name: string, id: string | readonly string[]): Promise<number>;
  async cancel(nameOrId: string, id?: string | readonly string[], ...others: unknown[]): Promise<number> {
    noOptions(others, "a cancellation", "it is a call of its own, not part of a transaction of yours");
    const admin = this.#opened().admin;
    if (id === undefined) {
      const job = await this.getJob(nameOrId);
      return job === null ? 0 : this.cancel(job.name, job.id);
    }
    const ids = typeof id === "string" ? [id] : id;
    let cancelled = 0;
    for (let start = 0; start < ids.length; start += MAX_CALL_ITEMS) {
      const request = { queue: nameOrId, jobIds: ids.slice(start, start + MAX_CALL_ITEMS) };
      const { results } = await admin.cancelJobs(request);
      cancelled += results.filter(({ status }) => CANCELLED.has(status)).length;
    }
    return cancelled;
  }

  /**
   * Pushes a job to a queue whenever a cron line is due, by the database's clock: once for each due time, however many processes
   * say so. It replaces the schedule that the queue has; `options.key` tells several apart. A program may say it at each start.
   */
  async schedule<Data = unknown>(
    name: string,
    cron: string,
    data?: Data,
    options: ScheduleOptions = {},
  ): Promise<void> {
    await this.#opened().admin.putSchedule({ schedule: scheduleFrom(name, cron, data, options) });
  }

  /** Ends a queue's schedule, that of a key if there are several; the jobs it has made stay. It is fine if there is none. */
  async unschedule(name: string, key?: string): Promise<void> {
    try {
      await this.#opened().admin.deleteSchedule({ name: scheduleName(name, key) });
    } catch (error) {
      if (!(error instanceof NotFound)) {
        throw error;
      }
    }
  }

  /**
   * Returns how many jobs of a queue wait: for a worker, for a time, for their turn. A number that is very large is an estimate, as
   * `counts` of `Client.admin.getQueue` says; it has those of running and failed jobs too.
   */
  async getQueueSize(name: string, ...others: never[]): Promise<number> {
    if (others.some((other) => other !== undefined)) {
      throw new InvalidArgument(
        "there are no options of a size: other counts are in Client.admin.getQueue of `jobwire`",
      );
    }
    try {
      const { queue } = await this.#opened().admin.getQueue({ name });
      const { ready = 0, scheduled = 0, blocked = 0 } = queue?.counts ?? {};
      return ready + scheduled + blocked;
    } catch (error) {
      if (error instanceof NotFound) {
        return 0; // nothing has been pushed to it yet
      }
      throw error;
    }
  }

  /**
   * Stops in order: no new jobs, running handlers may finish for `stopGrace`, what is being pushed arrives. With `now` handlers are
   * told to stop at once, and their jobs given back. Rejects with the error for which a worker ended before.
   */
  stop(options: { now?: boolean } = {}): Promise<void> {
    const ends = this.#workers.map((worker) => worker.stop(options));
    this.#stopped ??= this.#end(ends);
    return this.#stopped;
  }

  async #end(ends: readonly Promise<void>[]): Promise<void> {
    try {
      const [failed] = (await Promise.allSettled(ends)).filter((end) => end.status === "rejected");
      if (failed) {
        throw failed.reason;
      }
    } finally {
      await this.#client?.close();
      process.off("SIGTERM", this.#signalled).off("SIGINT", this.#signalled);
    }
  }

  /** The second signal cuts the grace short. If nobody else listens for it, the process ends as it would have without this listener. */
  async #stopBy(signal: NodeJS.Signals): Promise<void> {
    const alone = process.listenerCount(signal) === 1;
    let code = 0;
    try {
      await this.stop({ now: this.#stopped !== undefined });
    } catch {
      // It was logged when it happened.
      code = 1;
    }
    if (alone) {
      process.exit(code);
    }
  }

  #opened(): Client {
    this.#check();
    if (this.#client === undefined) {
      const { timeout } = this.#options;
      this.#client = new Client(this.#target(), { ...this.#security(), timeout });
    }
    return this.#client;
  }

  #target(): string {
    return this.#options.target ?? (process.env.JOBWIRE_SERVER || "127.0.0.1:50051");
  }

  #security(): { tls: boolean | Tls | undefined; token: Token | undefined } {
    const { tls, token } = this.#options;
    return { tls: tls ?? tlsFromEnvironment(), token: token ?? process.env.JOBWIRE_TOKEN };
  }

  #check(): void {
    if (this.#stopped !== undefined) {
      throw new Error("this job queue was stopped: make a new one with createJobQueue");
    }
  }
}

/** Makes another JobQueue, such as for a test. */
export function createJobQueue(options: JobQueueOptions = {}): JobQueue {
  return new JobQueue(options);
}

/** The one of the program, as the environment says. */
export const jobQueue = createJobQueue();

function tlsFromEnvironment(): Tls | undefined {
  const file = process.env.JOBWIRE_CA_FILE;
  if (!file) {
    return undefined;
  }
  try {
    return { ca: readFileSync(file) };
  } catch (error) {
    throw new InvalidArgument(`JOBWIRE_CA_FILE: ${(error as Error).message}`, { cause: error });
  }
}

/** Refuses what pg-boss takes as a last argument and Jobwire does not. */
function noOptions(given: readonly unknown[], what: string, instead: string): void {
  if (given.some((options) => options !== undefined)) {
    throw new InvalidArgument(`there are no options of ${what}: ${instead}`);
  }
}

function processed<Data>(job: Job<Data>): ProcessedJob<Data> {
  return {
    id: job.id,
    name: job.queue,
    data: job.data,
    signal: job.signal,
    priority: job.priority,
    retryCount: job.retryCount,
    retryLimit: job.retryLimit,
    createdOn: job.createTime,
    checkpoint: job.checkpoint,
    progress: (fraction, note, options) => job.progress(fraction, note, options),
    extend: (seconds) => job.extend(seconds),
  };
}

function queuedJobFrom<Data, Output>(job: JobInfo<Data, Output>): QueuedJob<Data, Output> {
  return {
    id: job.id,
    name: job.queue,
    data: job.data,
    state: job.state,
    output: job.output ?? lastErrorOf(job),
    progress: job.progress,
    priority: job.priority,
    retryCount: job.retryCount,
    retryLimit: job.options.retryLimit ?? 0,
    singletonKey: job.key || null,
    startAfter: job.startAfter,
    createdOn: job.createTime,
    startedOn: job.startTime,
    completedOn: job.finishTime,
  };
}

function lastErrorOf({ state, errors }: JobInfo): { name: string; message: string; stack: string } | null {
  const last = state === "failed" || state === "retry" ? errors.at(-1) : undefined;
  return last === undefined ? null : { name: last.type, message: last.message, stack: last.trace };
}
