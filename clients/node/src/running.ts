// How a handler is run: a delivery becomes a Job, and whatever the handler does with it becomes an outcome.

import { originFrom } from "./convert.js";
import type { Delivery } from "./generated/jobwire/v1/queue_service.js";
import { Job, type JobFields } from "./job.js";
import { completed, type Outcome, thrown } from "./outcome.js";
import type { Reporter } from "./reporting.js";
import { fromDuration, fromJson } from "./wire.js";

/** A function that runs one job, and returns its output: what JSON can carry, or nothing. */
export type Handler<Data = unknown, Output = unknown> = (job: Job<Data>) => Promise<Output> | Output;

/**
 * Runs the handler of some queues, several runs at once. Nothing stops a running function from outside: it is told by its
 * signal, and ends by itself.
 */
export interface Runner {
  /** Runs the handler on one delivery; never rejects. */
  run(delivery: Delivery, link: Reporter): Promise<Outcome>;
  /** Lets go of what is kept for further runs. */
  close(): Promise<void>;
}

/** Calls the handler for each job. */
export class SingleRunner implements Runner {
  readonly #handler: Handler;

  constructor(handler: Handler) {
    this.#handler = handler;
  }

  async run(delivery: Delivery, link: Reporter): Promise<Outcome> {
    try {
      return completed(await this.#handler(new Job(fieldsOf(delivery), link)));
    } catch (error) {
      return link.stopped === undefined ? thrown(error) : thrown(error, link.signal);
    }
  }

  async close(): Promise<void> {}
}

/** What a handler sees of a delivery. */
export function fieldsOf(delivery: Delivery): JobFields {
  return {
    data: fromJson(delivery.data),
    queue: delivery.queue,
    id: delivery.jobId,
    headers: delivery.headers,
    priority: delivery.priority,
    attempt: delivery.attempt,
    retryCount: delivery.retryCount,
    retryLimit: delivery.retryLimit,
    createTime: delivery.createTime ?? new Date(0),
    expireIn: fromDuration(delivery.expireIn),
    checkpoint: fromJson(delivery.checkpoint),
    origin: delivery.origin === undefined ? null : originFrom(delivery.origin),
  };
}
