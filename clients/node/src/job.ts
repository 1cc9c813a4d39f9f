// The job that a handler gets, and the link over which it speaks to the worker while it runs.

import { inspect } from "node:util";
import type { Progress } from "./generated/jobwire/v1/job.js";
import type { JobOrigin } from "./model.js";
import { completed, type Outcome, thrown } from "./outcome.js";
import { ReleaseJob } from "./signals.js";
import { nextTurn } from "./waiting.js";
import { cleanText, MAX_CHECKPOINT_BYTES, toJson } from "./wire.js";

const SHORTEST_EXTENSION = 1;
const LONGEST_EXTENSION = 7 * 24 * 3600;
const NOTE_LENGTH = 1000;

/** How a running job reaches its worker. */
export interface Link {
  /** Aborted when the run is to stop. */
  readonly signal: AbortSignal;
  /** Say how far the job is, and in a checkpoint what the next attempt is to know; the latest word wins. */
  report(progress: Progress): void;
  /** Ask for a new time limit at once; done when that is answered, or of no interest any more. */
  extend(seconds: number): Promise<void>;
}

/** How one job of a batch reaches its worker. */
export interface MemberLink extends Link {
  /** Whether it has been said what became of the job. */
  readonly settled: boolean;
  /** Say it; what is said later does not count. */
  settle(outcome: Outcome): void;
}

/** The link of a Job made by hand, for trying out a handler: it says nothing to anybody. */
class Unlinked implements MemberLink {
  readonly signal = new AbortController().signal;
  settled = false;

  report(): void {}

  async extend(): Promise<void> {}

  settle(): void {
    this.settled = true;
  }
}

/** The fields of a delivery. */
export interface JobFields<Data = unknown> {
  /** The payload, parsed. */
  data: Data;
  queue: string;
  id: string;
  headers: Readonly<Record<string, string>>;
  priority: number;
  /** Which delivery of the job this is, counted from 1. It only grows, so it may fence writes to other systems. */
  attempt: number;
  /** Retries used up so far. */
  retryCount: number;
  /** Retries allowed. */
  retryLimit: number;
  /** When the job was stored. */
  createTime: Date;
  /** How long this run may take from its delivery, in seconds, unless `extend` moves the limit. */
  expireIn: number;
  /** What the last attempt left for this one (`progress(…, { checkpoint })`), parsed; null if nothing. */
  // biome-ignore lint/suspicious/noExplicitAny: it is whatever the handler itself left
  checkpoint: any;
  /** Where it comes from, if it is a dead letter or was redriven. */
  origin: JobOrigin | null;
}

/** One delivery of a job. To try out a handler, make one by hand: `new Job({ data: { fileKey: "a.xlsx" } })`. */
export class Job<Data = unknown> implements JobFields<Data> {
  readonly data: Data;
  readonly queue: string;
  readonly id: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly priority: number;
  readonly attempt: number;
  readonly retryCount: number;
  readonly retryLimit: number;
  readonly createTime: Date;
  readonly expireIn: number;
  // biome-ignore lint/suspicious/noExplicitAny: as above
  readonly checkpoint: any;
  readonly origin: JobOrigin | null;
  readonly #link: Link;

  constructor(fields: Partial<JobFields<Data>> & Pick<JobFields<Data>, "data">, link: Link = new Unlinked()) {
    this.data = fields.data;
    this.queue = fields.queue ?? "";
    this.id = fields.id ?? "";
    this.headers = fields.headers ?? {};
    this.priority = fields.priority ?? 0;
    this.attempt = fields.attempt ?? 1;
    this.retryCount = fields.retryCount ?? 0;
    this.retryLimit = fields.retryLimit ?? 0;
    this.createTime = fields.createTime ?? new Date();
    this.expireIn = fields.expireIn ?? 900;
    this.checkpoint = fields.checkpoint ?? null;
    this.origin = fields.origin ?? null;
    this.#link = link;
  }

  /**
   * Aborted when the run is to stop: the job was cancelled, its time is over, its lease is lost, or the worker stops; its
   * reason is a JobCancelled that says which. Pass it on to whatever takes a signal, or call `signal.throwIfAborted()` between
   * steps: a handler that looks away runs on.
   */
  get signal(): AbortSignal {
    return this.#link.signal;
  }

  /**
   * Say how far the job is. Cheap: call it as often as you like, the latest word is sent a few times a second. It lets the rest
   * of the program run for a moment, so a handler that computes for long should await it now and then.
   *
   * @param fraction share of the work that is done, 0 to 1 (what is outside is clamped); null if unknown.
   * @param note a line for people, at most 1,000 characters; longer ones are cut.
   * @param options.checkpoint what the next attempt is to know should this one not finish, at most 64 KiB as JSON. It is kept
   *   until another one replaces it; undefined leaves it as it is. What is said before the run fails or is given back is there
   *   when that is.
   * @throws {Error} the checkpoint is no JSON, or too large.
   * @throws {TypeError} the share is no number, the note no text.
   */
  async progress(fraction: number | null, note = "", options: { checkpoint?: unknown } = {}): Promise<void> {
    const share = shareOf(fraction);
    if (typeof note !== "string") throw new TypeError(`progress: the note is a text, not ${inspect(note)}`);
    const { checkpoint } = options;
    const text = checkpoint === undefined || checkpoint === null ? undefined : toJson(checkpoint, MAX_CHECKPOINT_BYTES);
    this.#link.report({ fraction: share, note: cleanText(note, NOTE_LENGTH), checkpoint: text });
    await nextTurn();
  }

  /**
   * Move the run's time limit to `seconds` (1 s to 7 days) from now. Done when the server has answered; if the lease is over,
   * `signal` is aborted by then.
   *
   * @throws {RangeError} no such limit.
   */
  async extend(seconds: number): Promise<void> {
    if (!(seconds >= SHORTEST_EXTENSION && seconds <= LONGEST_EXTENSION)) {
      throw new RangeError(`extend(${seconds} s): a time limit is 1 s to 7 days from now`);
    }
    await this.#link.extend(seconds);
  }
}

/** What the server would refuse, and the checkpoint that goes with it, must not be sent: NaN, in JavaScript undefined too. */
function shareOf(fraction: number | null | undefined): number | undefined {
  if (fraction === null || fraction === undefined || Number.isNaN(fraction)) return undefined;
  if (typeof fraction !== "number") {
    throw new TypeError(`progress: the share is a number from 0 to 1, or null, not ${inspect(fraction)}`);
  }
  return Math.min(1, Math.max(0, fraction));
}

/** One job of a batch, which is settled on its own: the first of `complete`, `fail` and `release` counts. */
export class BatchJob<Data = unknown, Output = unknown> extends Job<Data> {
  readonly #link: MemberLink;

  constructor(fields: Partial<JobFields<Data>> & Pick<JobFields<Data>, "data">, link: MemberLink = new Unlinked()) {
    super(fields, link);
    this.#link = link;
  }

  /** Whether it has been said what became of the job. */
  get settled(): boolean {
    return this.#link.settled;
  }

  /** Say that the job is done, with an output as a handler of single jobs would return it. */
  complete(output?: Output): void {
    this.#link.settle(completed(output));
  }

  /** Say that the run failed, as if a handler of single jobs had thrown this: FailForGood and RetryIn too. */
  fail(error: unknown): void {
    this.#link.settle(thrown(error, this.signal));
  }

  /** Give the job back untouched, as ReleaseJob does; `delay` in seconds. */
  release(delay?: number): void {
    this.fail(new ReleaseJob(delay));
  }
}
