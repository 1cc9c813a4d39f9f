// What a handler says by throwing, other than that it failed; and what its signal is aborted with.

const LONGEST_PAUSE = 7 * 24 * 3600;

/**
 * Known by a mark, not by its class: a program that loads this package both by `import` and by `require` has each class twice.
 */
const MARK = Symbol.for("jobwire.signal");

/** A pause that may be asked for, in seconds; throws a RangeError for what is none, such as the text of a header. */
export function pause(seconds: number): number {
  if (!(typeof seconds === "number" && seconds >= 0 && seconds <= LONGEST_PAUSE))
    throw new RangeError(`a pause of ${String(seconds)} s: it must be a number, 0 s to 7 days`);
  return seconds;
}

/**
 * Why a handler is told to stop: somebody cancelled the job (`requested`), its time limit is over (`expired`), the server gave
 * it to somebody else (`lease_lost`), may have done so since nothing was heard from it (`silence`), or the worker stops
 * (`stopping`).
 */
export type StopReason = "requested" | "expired" | "lease_lost" | "silence" | "stopping";

/**
 * Fails the job without further retries, with a message for people. Subclasses are fine: the class name becomes the error's
 * type.
 */
export class FailForGood extends Error {
  readonly [MARK]: string = "fail for good";

  constructor(message?: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** Fails this run, and asks for the next one after exactly this pause. Uses up a retry. */
export class RetryIn extends Error {
  readonly [MARK]: string = "retry in";
  /** The pause in seconds. */
  readonly seconds: number;

  /** @param seconds 0 s to 7 days. */
  constructor(seconds: number, message?: string, options?: ErrorOptions) {
    super(message ?? `to be tried again in ${seconds} s`, options);
    this.seconds = pause(seconds);
    this.name = new.target.name;
  }
}

/** Gives the job back untouched: no retry is used up. */
export class ReleaseJob extends Error {
  readonly [MARK]: string = "release";
  /** The pause before the next delivery in seconds; undefined: at once the first time, then growing to 60 s. */
  readonly delay: number | undefined;

  /** @param delay 0 s to 7 days. */
  constructor(delay?: number) {
    super("given back");
    this.delay = delay === undefined ? undefined : pause(delay);
    this.name = new.target.name;
  }
}

/** What `job.signal` is aborted with: let it pass when it is thrown at you. */
export class JobCancelled extends Error {
  readonly [MARK]: string = "cancelled";
  /** Why the handler is to stop. */
  readonly reason: StopReason;

  constructor(reason: StopReason) {
    super(`the job is to stop (${reason})`);
    this.reason = reason;
    this.name = new.target.name;
  }
}

function is<Kind>(kind: string): (error: unknown) => error is Kind {
  return (error): error is Kind =>
    typeof error === "object" && error !== null && (error as { [MARK]?: string })[MARK] === kind;
}

/** Whether something thrown is a FailForGood. */
export const isFailForGood = is<FailForGood>("fail for good");

/** Whether something thrown is a RetryIn. */
export const isRetryIn = is<RetryIn>("retry in");

/** Whether something thrown is a ReleaseJob. */
export const isReleaseJob = is<ReleaseJob>("release");

/** Whether something thrown is a JobCancelled. */
export const isJobCancelled = is<JobCancelled>("cancelled");
