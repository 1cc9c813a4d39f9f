// The client: publish jobs, look at them, wait for them; what an operator does is `admin`.

import { type Admin, adminOver } from "./admin.js";
import { Connection, type ConnectionOptions, closedError } from "./connection.js";
import { jobInfoFrom } from "./convert.js";
import { InvalidArgument } from "./errors.js";
import { Following } from "./following.js";
import { GetJobRequest, QueueServiceService } from "./generated/jobwire/v1/queue_service.js";
import type { JobInfo, JobTerms, NewJob, Published } from "./model.js";
import { Publisher } from "./publishing.js";

/** With whom a Client speaks, as whom, and how patiently. */
export interface ClientOptions extends Omit<ConnectionOptions, "balancing"> {
  /** For each call, in seconds, repetitions and pauses included. Default 10. */
  timeout?: number | undefined;
}

/** What may be said of a job when it is published, and when to stop waiting for the answer. */
export interface PublishOptions extends JobTerms {
  /** Aborting it rejects the call; what is on its way is not taken back. */
  signal?: AbortSignal | undefined;
}

/**
 * Talks to Jobwire; make one, and share it in the whole program. The connection is made with the first call, and again whenever it
 * breaks; it does not keep the process alive. Every method rejects with a JobwireError.
 *
 * `target` is host and port; `dns:///host:50051` spreads calls over all addresses of the name.
 */
export class Client implements AsyncDisposable {
  /** What an operator does: cancel jobs, look after queues and schedules, ask workers to leave. */
  readonly admin: Admin;
  readonly #connection: Connection;
  readonly #publisher: Publisher;
  readonly #timeout: number;
  #closed: Promise<void> | undefined;

  constructor(target: string, { timeout = 10, ...connection }: ClientOptions = {}) {
    if (!(Number.isFinite(timeout) && timeout > 0)) {
      throw new InvalidArgument(`timeout: a number of seconds above 0, not ${String(timeout)}`);
    }
    this.#timeout = timeout;
    this.#connection = new Connection(target, connection);
    this.#publisher = new Publisher(this.#connection, timeout);
    this.admin = adminOver(this.#connection, timeout, () => this.#open());
  }

  /**
   * Stores one job; when this resolves, it is on disk, or `created` is false and `reason` says why it is not.
   *
   * What is published to a queue at the same time shares calls, but not fate. Aborting `signal` does not take the job back if it was
   * on its way. Rejects with:
   * - InvalidArgument: a field breaks a rule; nothing was stored.
   * - NotFound: the queue does not exist, and the server does not make queues by itself.
   * - Overloaded, QueueFull: no room for it within the timeout; nothing was stored.
   * - Unavailable, DeadlineExceeded: not within the timeout. The job may be stored; publishing it again with the same id is safe.
   */
  async publish<Data = unknown>(queue: string, data: Data, options: PublishOptions = {}): Promise<Published> {
    const { signal, ...terms } = options;
    this.#open();
    named(queue);
    return this.#publisher.publish(queue, { ...terms, data }, signal);
  }

  /**
   * Stores many jobs of one queue in their order; the results are in that order too.
   *
   * Up to 1,000 jobs and 3 MiB travel in one call and are stored all or none. A larger list is split, and atomic only per call: if
   * this rejects, the calls before are stored. If the jobs have ids, repeating it is safe and completes the rest. All are checked
   * for what cannot travel before the first is sent. `onProgress` is called after each call with how many have been answered, and how
   * many there are. The timeout is for each call. Rejects as `publish`.
   */
  async publishMany(
    queue: string,
    jobs: Iterable<NewJob>,
    options: {
      onProgress?: ((done: number, total: number) => void) | undefined;
      signal?: AbortSignal | undefined;
    } = {},
  ): Promise<Published[]> {
    this.#open();
    named(queue);
    return this.#publisher.publishMany(queue, jobs, options.onProgress, options.signal);
  }

  /**
   * Returns a job as it is now, live or finished. Without a queue all are searched, which takes the longer the more there are, and
   * the newest job counts. Rejects with NotFound if there is no such job, or its retention is over.
   */
  async getJob<Data = unknown, Output = unknown>(
    jobId: string,
    options: { queue?: string | undefined; signal?: AbortSignal | undefined } = {},
  ): Promise<JobInfo<Data, Output>> {
    this.#open();
    const request = GetJobRequest.fromPartial({ queue: options.queue ?? "", jobId });
    const method = QueueServiceService.getJob;
    const { job } = await this.#connection.call(method, request, this.#timeout, options.signal);
    return jobInfoFrom<Data, Output>(job as NonNullable<typeof job>);
  }

  /**
   * Waits until a job is finished, and returns it. How it finished is in its `state`. Waits by long polls, and goes on by itself
   * after the server restarts or the network fails.
   *
   * `timeout` is in seconds; left out, it waits for ever. `onChange` is called with the job as it is found first and after each change
   * of state, attempt or progress that is seen; changes in quick succession may be seen as one.
   *
   * Rejects with DeadlineExceeded if the job is not finished within the timeout, with NotFound if there is no such job.
   */
  async wait<Data = unknown, Output = unknown>(
    jobId: string,
    options: {
      queue?: string | undefined;
      timeout?: number | undefined;
      signal?: AbortSignal | undefined;
      onChange?: ((job: JobInfo<Data, Output>) => void) | undefined;
    } = {},
  ): Promise<JobInfo<Data, Output>> {
    this.#open();
    const { queue = "", onChange, timeout, signal } = options;
    // A text would be no timeout, and NaN one that is over.
    if (timeout !== undefined && (typeof timeout !== "number" || Number.isNaN(timeout))) {
      throw new InvalidArgument(`timeout: a number of seconds, not ${String(timeout)}`, { reason: "INVALID_ARGUMENT" });
    }
    return new Following<Data, Output>(this.#connection, jobId, queue, onChange).toTheEnd(timeout, signal);
  }

  /**
   * Lets publishes that are on their way finish, and closes the connection; whatever else is asked or waited for rejects with
   * FailedPrecondition (`CLOSED`), and so does what is asked later. Closing twice is fine.
   */
  close(): Promise<void> {
    this.#closed ??= this.#publisher.close().then(() => this.#connection.close());
    return this.#closed;
  }

  /** For `await using client = new Client(…)`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #open(): void {
    if (this.#closed !== undefined) {
      throw closedError(this.#connection.target);
    }
  }
}

/** In JavaScript a name that is missing would be the queue `undefined`. */
function named(queue: string): void {
  if (typeof queue !== "string") {
    throw new InvalidArgument(`queue: its name is a text, not ${typeof queue}`, { reason: "INVALID_ARGUMENT" });
  }
}
