// What may be said with `jobQueue.push` and `jobQueue.process`: Jobwire's words and pg-boss's, turned into Jobwire's.
//
// No option is dropped in silence. What has no counterpart is refused with what to do instead; only what merely tuned pg-boss's
// polling is passed over, since nothing polls here.

import { InvalidArgument } from "./errors.js";
import type { JobOptions, JobTerms } from "./model.js";
import type { HandlerOptions } from "./worker.js";

/** Jobwire's words, and the names by which pg-boss knows them. Spans are seconds. */
export interface PushOptions extends Omit<JobTerms, "startAfter" | "options">, JobOptions {
  /** Not before this point in time: a Date or its ISO text; or so many seconds from now, as a number or in digits. */
  startAfter?: Date | string | number | undefined;
  /** `key`: which others of its queue the policy minds. A queue of the policy `standard`, the default, minds none. */
  singletonKey?: string | undefined;
  /** `throttle`: one job of its key in each slot of so many seconds. */
  singletonSeconds?: number | undefined;
  /** With `singletonSeconds`, `debounce`: the second one of a slot starts with the next slot. */
  singletonNextSlot?: boolean | undefined;
  /** `expireIn`: how long one run may take. */
  expireInSeconds?: number | undefined;
  /** `retention`: how long a finished job is kept. */
  deleteAfterSeconds?: number | undefined;
}

/** How a handler takes jobs. */
export interface ProcessOptions extends HandlerOptions {
  /** `concurrency`, as pg-boss calls it. */
  localConcurrency?: number | undefined;
  /** `concurrency`, as older versions of pg-boss call it. */
  teamSize?: number | undefined;
}

type Given = Record<string, unknown>;

const POLLING = [
  "includeMetadata",
  "newJobCheckInterval",
  "newJobCheckIntervalSeconds",
  "notifyPollingIntervalSeconds",
  "pollingIntervalSeconds",
  "teamConcurrency",
  "teamRefill",
];

const WAITING = "how long a job may wait is said of its queue (waiting_retention)";

const INSTEAD: Record<string, string> = {
  batchSize: "a handler gets one job; for several at once use Worker.batchHandler of `jobwire`",
  db: "to publish in a transaction of your own, call the SQL function jobwire.publish there",
  expireInHours: "say expireInSeconds",
  expireInMinutes: "say expireInSeconds",
  heartbeatSeconds: "leave it out: the worker's connection shows that it lives",
  options: "say its words themselves, such as retryLimit",
  keepUntil: WAITING,
  onComplete: "wait for the job with Client.wait of `jobwire`",
  retentionDays: WAITING,
  retentionHours: WAITING,
  retentionMinutes: WAITING,
  retentionSeconds: WAITING,
  singletonDays: "say singletonSeconds",
  singletonHours: "say singletonSeconds",
  singletonMinutes: "say singletonSeconds",
  useSingletonQueue: "make the queue with the policy `short`",
};

/** The terms of a job; throws InvalidArgument for what has no counterpart. */
export function termsFrom(given: PushOptions): JobTerms {
  const {
    startAfter,
    singletonKey,
    singletonSeconds,
    singletonNextSlot,
    expireInSeconds,
    deleteAfterSeconds,
    ...rest
  } = given;
  const { retryLimit, retryDelay, retryBackoff, retryDelayMax, expireIn, retention, deadLetter, ...terms } = rest;
  refuse(terms, INSTEAD);
  if (singletonNextSlot && singletonSeconds === undefined) {
    throw new InvalidArgument("singletonNextSlot says which slot; give singletonSeconds, how long slots are");
  }
  return {
    ...terms,
    ...startFrom(startAfter),
    ...either("key", terms.key, "singletonKey", singletonKey),
    ...(singletonSeconds === undefined ? {} : { [singletonNextSlot ? "debounce" : "throttle"]: singletonSeconds }),
    options: {
      retryLimit,
      retryDelay,
      retryBackoff,
      retryDelayMax,
      deadLetter,
      ...either("expireIn", expireIn, "expireInSeconds", expireInSeconds),
      ...either("retention", retention, "deleteAfterSeconds", deleteAfterSeconds),
    },
  };
}

/** How a handler takes jobs; throws InvalidArgument for what has no counterpart. */
export function handlerOptionsFrom(given: ProcessOptions): HandlerOptions {
  const { concurrency, localConcurrency, teamSize, ...rest } = given;
  refuse(Object.fromEntries(Object.entries(rest).filter(([name]) => !POLLING.includes(name))), INSTEAD, true);
  return { concurrency: concurrency ?? localConcurrency ?? teamSize };
}

function startFrom(start: PushOptions["startAfter"]): Pick<JobTerms, "startAfter" | "startIn"> {
  if (typeof start === "number") {
    return { startIn: start };
  }
  if (typeof start !== "string") {
    return start === undefined ? {} : { startAfter: start };
  }
  // Digits are seconds, as for pg-boss: taken for a date they would be a year, or a month long ago.
  if (/^\d+$/.test(start)) {
    return { startIn: Number(start) };
  }
  const startAfter = new Date(start);
  if (Number.isNaN(startAfter.getTime())) {
    throw new InvalidArgument(
      `startAfter: ${JSON.stringify(start)} is no point in time in ISO 8601, and no number of seconds`,
    );
  }
  return { startAfter };
}

/** One of two names for the same. */
function either<Name extends string, Value>(
  name: Name,
  value: Value | undefined,
  otherName: string,
  other: Value | undefined,
): { [key in Name]?: Value } {
  if (value !== undefined && other !== undefined) {
    throw new InvalidArgument(`${name} and ${otherName} mean the same: give one`);
  }
  return { [name]: value ?? other } as { [key in Name]?: Value };
}

/** Refuses what pg-boss knows and Jobwire does not; `all`: whatever is there. Other words are refused with the job. */
export function refuse(given: object, advice: Record<string, string>, all = false): void {
  for (const [name, value] of Object.entries(given as Given)) {
    const instead = advice[name];
    if (value !== undefined && (all || instead !== undefined)) {
      throw new InvalidArgument(`there is no option ${name}${instead === undefined ? "" : `: ${instead}`}`);
    }
  }
}
