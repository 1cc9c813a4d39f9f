// When a failed call is repeated, and after what pause.
//
// Only what may be repeated safely comes here, so what decides is only whether repeating can help.

import type { Code, JobwireError } from "./errors.js";

const WORTH_REPEATING: ReadonlySet<Code> = new Set<Code>([
  "UNAVAILABLE",
  "DEADLINE_EXCEEDED",
  "ABORTED",
  "CANCELLED", // not by the caller
]);

/** How long one attempt may take, in seconds, so that a connection that died unnoticed leaves time for another attempt. */
export const ATTEMPT_TIMEOUT = 5;

/** Whether the same call may succeed later. */
export function worthRepeating(error: JobwireError): boolean {
  return WORTH_REPEATING.has(error.code) || error.retryAfter !== undefined;
}

/** The monotonic clock, in seconds. */
export function now(): number {
  return performance.now() / 1000;
}

/**
 * Pauses that grow, with full jitter: each is uniform between 0 and a bound that doubles. Full jitter spreads a thousand clients of
 * one restarted server best: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
 */
export class Backoff {
  readonly #first: number;
  readonly #cap: number;
  #bound: number;

  constructor(first = 0.1, cap = 3) {
    this.#first = first;
    this.#cap = cap;
    this.#bound = first;
  }

  /** Returns the next pause in seconds; `atLeast` is what the server asked for. */
  pause(atLeast = 0): number {
    const pause = Math.random() * this.#bound + atLeast;
    this.#bound = Math.min(this.#cap, this.#bound * 2);
    return pause;
  }

  /** Begins anew, after a success. */
  reset(): void {
    this.#bound = this.#first;
  }
}

/** The attempts of one call within its time, in seconds. */
export class Attempts {
  readonly #deadline: number;
  readonly #backoff = new Backoff();

  constructor(timeout: number) {
    this.#deadline = now() + timeout;
  }

  /** How long the next attempt may take, in seconds. */
  timeout(): number {
    return Math.max(0.001, Math.min(ATTEMPT_TIMEOUT, this.#deadline - now()));
  }

  /** Returns how long to wait before the next attempt; throws `error` if there should be none. */
  pauseAfter(error: JobwireError): number {
    if (!worthRepeating(error)) {
      throw error;
    }
    const pause = this.#backoff.pause(error.retryAfter);
    if (now() + pause >= this.#deadline) {
      throw error;
    }
    return pause;
  }
}
