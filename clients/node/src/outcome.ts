// How a run of a handler ended, and what is said of it in an Ack.
//
// Whatever a handler returns or throws becomes one of four plain outcomes; nothing that it throws goes further than this.

import { inspect } from "node:util";
import type { AckItem } from "./generated/jobwire/v1/queue_service.js";
import { isFailForGood, isJobCancelled, isReleaseJob, isRetryIn, pause, type StopReason } from "./signals.js";
import { cleanText, toDuration, toJson } from "./wire.js";

const TYPE_LENGTH = 200;
const MESSAGE_LENGTH = 2000;
const TRACE_BYTES = 8 * 1024;

/** Of so many errors of an AggregateError the stacks are told; making a stack takes time. */
const GATHERED = 10;

/** The handler returned. */
export interface Completed {
  readonly kind: "completed";
  /** Its result as JSON text; empty if it returned nothing. */
  readonly output: string;
}

/** The handler threw, or its result cannot travel. */
export interface Failed {
  readonly kind: "failed";
  readonly type: string;
  readonly message: string;
  readonly trace: string;
  readonly permanent: boolean;
  readonly retryIn?: number | undefined;
}

/** The job goes back untouched. */
export interface Released {
  readonly kind: "released";
  readonly delay?: number | undefined;
}

/** The handler ended because it was told to. */
export interface Stopped {
  readonly kind: "stopped";
}

export type Settling = Completed | Failed | Released;
export type Outcome = Settling | Stopped;

export const RELEASED: Released = { kind: "released" };
export const STOPPED: Stopped = { kind: "stopped" };
const COMPLETED: Completed = { kind: "completed", output: "" };
const UNREADABLE: Failed = {
  kind: "failed",
  type: "Error",
  message: "what the handler threw cannot be shown",
  trace: "",
  permanent: false,
};

/** The outcome of a handler that returned `result`. */
export function completed(result: unknown): Completed | Failed {
  if (result === undefined || result === null) return COMPLETED;
  try {
    return { kind: "completed", output: toJson(result) };
  } catch (error) {
    return badResult(textOf(error));
  }
}

/** The outcome of a handler whose result nobody takes; running it again would not help. */
export function badResult(why: string): Failed {
  const message = `the handler's result cannot be stored: ${why}`;
  return { kind: "failed", type: "BadResult", message, trace: "", permanent: true };
}

/**
 * The outcome of a handler that threw `error`.
 *
 * @param stoppedBy the signals that told it to stop, if any did: what they made it throw is the end that was asked for.
 */
export function thrown(error: unknown, ...stoppedBy: AbortSignal[]): Outcome {
  return guarded(() => outcomeOf(error, stoppedBy), UNREADABLE);
}

function outcomeOf(error: unknown, stoppedBy: readonly AbortSignal[]): Outcome {
  // Promise.any and the like wrap even the only thing that failed.
  const only = error instanceof AggregateError && error.errors.length === 1 ? error.errors[0] : error;
  if (stoppedBy.some((signal) => stemsFrom(only, signal))) return STOPPED;
  const failed: Failed = {
    kind: "failed",
    type: typeOf(only),
    message: textOf(only),
    trace: traceOf(only),
    permanent: isFailForGood(only),
  };
  try {
    // Looked at again: a derived class may have put there what it liked.
    if (isReleaseJob(only))
      return { kind: "released", delay: only.delay === undefined ? undefined : pause(only.delay) };
    return { ...failed, retryIn: isRetryIn(only) ? pause(only.seconds) : undefined };
  } catch (fault) {
    return { ...failed, message: `${failed.message} (it names no pause: ${textOf(fault)})` };
  }
}

/** What to report of a run that was told to stop for `reason`, if it was. */
export function settling(outcome: Outcome, reason: StopReason | undefined): Settling {
  if (outcome.kind === "stopped") {
    if (reason !== "expired") return RELEASED;
    const message = "the run took longer than its time limit; expireIn sets it, job.extend moves it";
    return { kind: "failed", type: "EXPIRED", message, trace: "", permanent: false };
  }
  const plainFailure = outcome.kind === "failed" && !outcome.permanent && outcome.retryIn === undefined;
  if (plainFailure && (reason === "stopping" || reason === "silence" || reason === "lease_lost")) {
    // It broke because it was interrupted, for a reason that is not the job's: that uses up no retry.
    return RELEASED;
  }
  return outcome;
}

/** The statement that settles a delivery. */
export function ackItem(handle: string, outcome: Settling): AckItem {
  switch (outcome.kind) {
    case "completed":
      return { handle, outcome: { $case: "complete", value: { output: outcome.output } } };
    case "failed":
      return {
        handle,
        outcome: {
          $case: "fail",
          value: {
            type: cleanText(outcome.type, TYPE_LENGTH),
            message: cleanText(outcome.message, MESSAGE_LENGTH),
            trace: beginningOf(outcome.trace),
            permanent: outcome.permanent,
            retryIn: outcome.retryIn === undefined ? undefined : toDuration(outcome.retryIn),
          },
        },
      };
    case "released":
      return {
        handle,
        outcome: {
          $case: "release",
          value: { delay: outcome.delay === undefined ? undefined : toDuration(outcome.delay) },
        },
      };
  }
}

/**
 * Whether something was thrown because `signal` is aborted. Node's own functions name the signal's reason as the cause of what
 * they throw; those of others may name none. An abort for another cause, such as a timeout of the handler's own, is a failure
 * like any other.
 */
function stemsFrom(error: unknown, signal: AbortSignal): boolean {
  if (!signal.aborted) return false;
  if (isJobCancelled(error)) return true;
  const causes = causesOf(error);
  if (causes.includes(signal.reason)) return true;
  const { name, code } = error instanceof Object ? (error as { name?: unknown; code?: unknown }) : {};
  return causes.length === 1 && (name === "AbortError" || code === "ABORT_ERR" || code === "ERR_CANCELED");
}

/** What was thrown, its cause, the cause of that, and so on, also if they go in a circle. */
function causesOf(error: unknown): unknown[] {
  const causes = new Set<unknown>();
  for (let each = error; each !== undefined && !causes.has(each); each = (each as { cause?: unknown } | null)?.cause) {
    causes.add(each);
  }
  return [...causes];
}

/** The classes of the language, whose names say less than that of a class derived from them. */
const PLAIN = new Set([
  "Error",
  "AggregateError",
  "EvalError",
  "RangeError",
  "ReferenceError",
  "SyntaxError",
  "TypeError",
]);

function typeOf(error: unknown): string {
  return guarded(() => {
    if (!isError(error)) return error === null ? "null" : typeof error;
    const { name } = error;
    // Each of them may be anything, such as a static method of that name.
    const told = [PLAIN.has(name) ? undefined : name, error.constructor?.name, name];
    return told.find((each) => typeof each === "string" && each !== "") ?? "Error";
  }, "Error");
}

function textOf(error: unknown): string {
  return guarded(
    () => {
      if (typeof error === "string") return error || "an empty string was thrown";
      if (!isError(error)) return `${inspect(error, { depth: 2, breakLength: Number.POSITIVE_INFINITY })} was thrown`;
      if (typeof error.message === "string" && error.message) return error.message;
      // A connection that failed at each of a name's addresses says so in its errors only.
      const { errors, code } = error as { errors?: unknown; code?: unknown };
      if (Array.isArray(errors) && errors.length > 0 && !errors.includes(error)) return errors.map(textOf).join("; ");
      return typeof code === "string" ? code : typeOf(error);
    },
    `${typeOf(error)} (its text cannot be shown)`,
  );
}

/**
 * The stacks of an error, of its causes and of what it gathers, and no other field of them: those may hold what is not for
 * everybody's eyes, such as a request's headers.
 */
function traceOf(error: unknown): string {
  const stackOf = (each: unknown) => (isError(each) && typeof each.stack === "string" ? each.stack : textOf(each));
  const stacksOf = (each: unknown) => [stackOf(each), ...gatheredBy(each).map(stackOf)].join("\nOne of its errors: ");
  return guarded(() => (isError(error) ? causesOf(error).map(stacksOf).join("\nCaused by: ") : ""), "");
}

/** What Promise.any and the like failed with; the text of such an error says no more than that there are several. */
function gatheredBy(error: unknown): unknown[] {
  return error instanceof AggregateError && Array.isArray(error.errors) ? error.errors.slice(0, GATHERED) : [];
}

/** Also of another realm, as in a test runner that loads modules in contexts of their own. */
function isError(value: unknown): value is Error {
  return value instanceof Error || Object.prototype.toString.call(value) === "[object Error]";
}

/** What was thrown may be anything, its fields may throw in turn. */
function guarded<Value>(read: () => Value, otherwise: Value): Value {
  try {
    return read();
  } catch {
    return otherwise;
  }
}

/** Keeps the beginning of a long trace: it names the place. */
function beginningOf(trace: string): string {
  const bytes = Buffer.from(cleanText(trace, TRACE_BYTES)).subarray(0, TRACE_BYTES);
  // A character that was cut in two is left out.
  return new TextDecoder().decode(bytes, { stream: true });
}
