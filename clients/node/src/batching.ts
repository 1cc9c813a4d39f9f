// Gathers the jobs of a queue for a handler that takes several at once.
//
// To the rest of the worker each job is a run of its own, from its delivery to its outcome: it is cancelled, reported on and
// settled without regard to its neighbours. Only the handler sees them together.

import type { Progress } from "./generated/jobwire/v1/job.js";
import type { Delivery } from "./generated/jobwire/v1/queue_service.js";
import { BatchJob, type MemberLink } from "./job.js";
import type { Logger } from "./logging.js";
import { badResult, completed, type Outcome, STOPPED, thrown } from "./outcome.js";
import type { Reporter } from "./reporting.js";
import { now } from "./retrying.js";
import { fieldsOf, type Runner } from "./running.js";
import { JobCancelled, type StopReason } from "./signals.js";
import { after, Flag, firstOf } from "./waiting.js";

/** How long a handler that has settled all its jobs may take to end when the worker stops, in seconds. */
const TIME_TO_END = 2;

/**
 * A function that runs several jobs at once, and settles each on its own. `signal` is aborted when all that it has not settled
 * is to stop, so that it has nothing left to do.
 */
export type BatchHandler<Data = unknown, Output = unknown> = (
  jobs: BatchJob<Data, Output>[],
  signal: AbortSignal,
) => Promise<void> | void;

/** Calls the handler for up to `size` jobs, or for those that came within `wait` seconds of the first. */
export class BatchRunner implements Runner {
  readonly #handler: BatchHandler;
  readonly #size: number;
  readonly #wait: number;
  readonly #logger: Logger;
  readonly #calls = new Set<Call>();
  #gathering: Member[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(handler: BatchHandler, size: number, wait: number, logger: Logger) {
    this.#handler = handler;
    this.#size = size;
    this.#wait = wait;
    this.#logger = logger;
  }

  /** Has one job run together with others. */
  run(delivery: Delivery, link: Reporter): Promise<Outcome> {
    const member = new Member(delivery, link);
    link.onStop = () => this.#stop(member);
    this.#gathering.push(member);
    if (this.#gathering.length === this.#size) this.#begin();
    else if (this.#gathering.length === 1) this.#timer = after(this.#wait, () => this.#begin());
    return member.outcome;
  }

  /** Ends handlers that work on although all their jobs are settled. */
  async close(): Promise<void> {
    clearTimeout(this.#timer);
    for (const call of this.#calls) call.stopIfUseless();
    const end = now() + TIME_TO_END;
    for (const { over } of this.#calls) await firstOf(end - now(), over);
  }

  #begin(): void {
    clearTimeout(this.#timer);
    const members = this.#gathering;
    this.#gathering = [];
    const call = new Call(members);
    this.#calls.add(call);
    void call.seeThrough(this.#handler, this.#logger).then(() => this.#calls.delete(call));
  }

  #stop(member: Member): void {
    if (member.call !== undefined) {
      member.call.stopIfUseless();
      return;
    }
    this.#gathering.splice(this.#gathering.indexOf(member), 1);
    if (this.#gathering.length === 0) clearTimeout(this.#timer);
    member.settle(STOPPED);
  }
}

/** One job of a batch: a MemberLink over its own link. */
class Member implements MemberLink {
  /** What became of it, as soon as that is known. */
  readonly outcome: Promise<Outcome>;
  /** The run of the handler that it is part of, as soon as there is one. */
  call: Call | undefined;
  settled = false;
  readonly #delivery: Delivery;
  readonly #link: Reporter;
  #end!: (outcome: Outcome) => void;

  constructor(delivery: Delivery, link: Reporter) {
    this.#delivery = delivery;
    this.#link = link;
    this.outcome = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  get signal(): AbortSignal {
    return this.#link.signal;
  }

  get stopped(): StopReason | undefined {
    return this.#link.stopped;
  }

  job(): BatchJob {
    return new BatchJob(fieldsOf(this.#delivery), this);
  }

  report(progress: Progress): void {
    this.#link.report(progress);
  }

  extend(seconds: number): Promise<void> {
    return this.#link.extend(seconds);
  }

  settle(outcome: Outcome): void {
    this.settled = true;
    this.#end(outcome); // the first one counts
  }
}

/** One run of the handler. */
class Call {
  /** Up when the handler has ended. */
  readonly over = new Flag();
  readonly #members: readonly Member[];
  readonly #controller = new AbortController();

  constructor(members: readonly Member[]) {
    this.#members = members;
    for (const member of members) member.call = this;
  }

  /** Tells the handler to stop if nothing else is left to it. */
  stopIfUseless(): void {
    const left = this.#members.filter(({ settled }) => !settled);
    if (left.every(({ stopped }) => stopped !== undefined)) {
      this.#controller.abort(new JobCancelled(left[0]?.stopped ?? "stopping"));
    }
  }

  async seeThrough(handler: BatchHandler, logger: Logger): Promise<void> {
    const outcome = await this.#run(handler);
    if (outcome.kind === "failed" && this.#members.every(({ settled }) => settled)) {
      // No job is left to fail with it.
      const text = `a handler of batches failed when all its jobs were settled: ${outcome.type}: ${outcome.message}`;
      logger.error(text, { trace: outcome.trace });
    }
    for (const member of this.#members) {
      const stopped = member.stopped !== undefined && outcome.kind === "completed";
      member.settle(stopped ? STOPPED : outcome);
    }
    this.over.raise();
  }

  async #run(handler: BatchHandler): Promise<Outcome> {
    try {
      const jobs = this.#members.map((member) => member.job());
      const result: unknown = await handler(jobs, this.#controller.signal);
      const nothing = result === undefined || result === null;
      return nothing
        ? completed(result)
        : badResult("a handler of batches settles each job by itself, and returns nothing");
    } catch (error) {
      // Also what one job's stop made it throw: the others did not fail by that, and go back.
      const stopped = this.#members.filter((member) => member.stopped !== undefined).map(({ signal }) => signal);
      return thrown(error, this.#controller.signal, ...stopped);
    }
  }
}
