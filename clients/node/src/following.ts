// Follows one job to its end by long polls, across server restarts.

import type { Connection } from "./connection.js";
import { jobInfoFrom } from "./convert.js";
import { DeadlineExceeded, JobwireError } from "./errors.js";
import { GetJobRequest, QueueServiceService } from "./generated/jobwire/v1/queue_service.js";
import type { JobInfo } from "./model.js";
import { onAbort, pause } from "./pausing.js";
import { Backoff, now, worthRepeating } from "./retrying.js";
import { after } from "./waiting.js";
import { toDuration } from "./wire.js";

/** How long one GetJob waits, in seconds; proxies rarely cut a call that is this short. */
const LONG_POLL = 30;

/** How much longer than its wait a long poll may take. */
const ANSWER_TIME = 10;

/** An unchanged job that comes back faster than this means that waits end early, as they do when the server drains. */
const QUICK = 1;

/** One job, looked at until it is finished. */
export class Following<Data, Output> {
  readonly #connection: Connection;
  readonly #jobId: string;
  readonly #queue: string;
  readonly #onChange: ((job: JobInfo<Data, Output>) => void) | undefined;
  #known: JobInfo<Data, Output> | undefined;
  #lastError: JobwireError | undefined;

  constructor(
    connection: Connection,
    jobId: string,
    queue: string,
    onChange: ((job: JobInfo<Data, Output>) => void) | undefined,
  ) {
    this.#connection = connection;
    this.#jobId = jobId;
    this.#queue = queue;
    this.#onChange = onChange;
  }

  /** Returns the finished job; rejects with DeadlineExceeded after `within` seconds, or with the signal's reason. */
  async toTheEnd(within: number | undefined, signal: AbortSignal | undefined): Promise<JobInfo<Data, Output>> {
    const stop = new AbortController();
    const forget = onAbort(signal, () => stop.abort(signal?.reason));
    const timer = within === undefined ? undefined : after(within, () => stop.abort(this.#tooLate(within)));
    try {
      signal?.throwIfAborted();
      return await this.#finished(stop.signal);
    } finally {
      clearTimeout(timer);
      forget();
    }
  }

  #tooLate(within: number): DeadlineExceeded {
    const seen = this.#known ? `it was ${this.#known.state} when last seen` : "it was never seen";
    const trouble = this.#lastError ? `; the last attempt failed: ${this.#lastError.message}` : "";
    return new DeadlineExceeded(`job ${this.#jobId} did not finish within ${within} s, ${seen}${trouble}`);
  }

  async #finished(signal: AbortSignal): Promise<JobInfo<Data, Output>> {
    const backoff = new Backoff();
    for (;;) {
      const asked = now();
      let job: JobInfo<Data, Output>;
      try {
        job = await this.#poll(signal);
      } catch (error) {
        if (!(error instanceof JobwireError && worthRepeating(error)) || signal.aborted) {
          throw error;
        }
        this.#lastError = error;
        await pause(backoff.pause(error.retryAfter), signal);
        continue;
      }
      this.#lastError = undefined;
      const changed = this.#known?.revision !== job.revision;
      this.#known = job;
      if (changed) {
        this.#onChange?.(job);
      }
      if (job.finished) {
        return job;
      }
      if (changed || now() - asked >= QUICK) {
        backoff.reset();
      } else {
        await pause(backoff.pause(), signal);
      }
    }
  }

  /** Asks once: the first time for the job as it is, then for the next change that matters. */
  async #poll(signal: AbortSignal): Promise<JobInfo<Data, Output>> {
    const wait = this.#known ? LONG_POLL : 0;
    const request = GetJobRequest.fromPartial({
      // Once it is found, its queue alone is searched: looking into all of them costs a server with many queues dear.
      queue: this.#known?.queue ?? this.#queue,
      jobId: this.#jobId,
      wait: toDuration(wait),
      knownRevision: this.#known?.revision ?? "",
      untilFinished: this.#onChange === undefined,
    });
    const { job } = await this.#connection.attempt(QueueServiceService.getJob, request, wait + ANSWER_TIME, signal);
    return jobInfoFrom<Data, Output>(job as NonNullable<typeof job>);
  }
}
