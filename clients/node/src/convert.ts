// Between protobuf messages and the values of `model`: one function for each, and nothing else.

import { InvalidArgument } from "./errors.js";
import type * as v1 from "./generated/jobwire/v1/job.js";
import { JobState as StateNumber } from "./generated/jobwire/v1/job.js";
import {
  type JobSpec,
  NotCreatedReason as NotCreatedNumber,
  PublishRequest,
  type PublishResult,
} from "./generated/jobwire/v1/queue_service.js";
import type {
  JobError,
  JobInfo,
  JobOptions,
  JobOrigin,
  JobState,
  NewJob,
  NotCreatedReason,
  Published,
} from "./model.js";
import { checkedDate, encode, fromDuration, fromJson, newJobId, TooLargeError, toDuration, toJson } from "./wire.js";

const STATES = words<JobState>(StateNumber);
const NOT_CREATED = words<NotCreatedReason>(NotCreatedNumber);
const FINISHED: ReadonlySet<JobState> = new Set<JobState>(["completed", "cancelled", "failed"]);

/** The words for an enum's numbers, but for 0, which says nothing. */
function words<Word extends string>(numbers: Record<string, number>): ReadonlyMap<number, Word> {
  const named = Object.entries(numbers).filter(([, number]) => number > 0);
  return new Map(named.map(([name, number]) => [number, name.toLowerCase() as Word]));
}

/**
 * A job as it travels: an encoded PublishRequest that holds it and nothing else. Several of them, one behind the other, are a
 * request with all their jobs. Throws InvalidArgument for what cannot travel; the other rules are the server's.
 */
export function specFrom(job: NewJob): Uint8Array {
  const id = job?.id ?? newJobId();
  try {
    const spec = { ...termsFrom(job), id: text("id", id), data: toJson(job.data) };
    return encode(PublishRequest, { queue: "", jobs: [spec] });
  } catch (error) {
    const { message } = error as Error;
    if (error instanceof TooLargeError) {
      throw new InvalidArgument(`data: ${message}`, { reason: "DATA_TOO_LARGE", cause: error });
    }
    throw new InvalidArgument(`job ${String(id)}: ${message}`, { reason: "INVALID_ARGUMENT", cause: error });
  }
}

const OPTIONS: ReadonlySet<string> = new Set<keyof JobOptions>([
  "retryLimit",
  "retryDelay",
  "retryBackoff",
  "retryDelayMax",
  "expireIn",
  "retention",
  "deadLetter",
]);

const FIELDS: ReadonlySet<string> = new Set<keyof NewJob>([
  "data",
  "id",
  "priority",
  "startAfter",
  "startIn",
  "headers",
  "options",
  "key",
  "group",
  "throttle",
  "debounce",
  "uniqueFor",
]);

/** What is said of a job beside its id and its data. */
function termsFrom(job: NewJob): Omit<JobSpec, "id" | "data"> {
  onlyKnown("a job", job, FIELDS);
  onlyOne({ startAfter: job.startAfter, startIn: job.startIn });
  onlyOne({ throttle: job.throttle, debounce: job.debounce, uniqueFor: job.uniqueFor });
  return {
    priority: integer("priority", job.priority) ?? 0,
    start: startFrom(job),
    headers: job.headers === undefined ? {} : checkedHeaders(job.headers),
    options: job.options === undefined ? undefined : optionsMessage(job.options),
    key: text("key", job.key ?? ""),
    group: groupFrom(job.group),
    unique: uniqueFrom(job),
  };
}

function startFrom({ startAfter, startIn }: NewJob): JobSpec["start"] {
  if (startAfter !== undefined) {
    return { $case: "startAfter", value: checkedDate(startAfter) };
  }
  return startIn === undefined ? undefined : { $case: "startIn", value: toDuration(startIn) };
}

function uniqueFrom({ throttle, debounce, uniqueFor }: NewJob): JobSpec["unique"] {
  if (throttle !== undefined) {
    return { $case: "throttle", value: toDuration(throttle) };
  }
  if (debounce !== undefined) {
    return { $case: "debounce", value: toDuration(debounce) };
  }
  return uniqueFor === undefined ? undefined : { $case: "uniqueFor", value: toDuration(uniqueFor) };
}

function groupFrom(group: NewJob["group"]): v1.JobGroup | undefined {
  if (group === undefined) {
    return undefined;
  }
  if (typeof group === "string") {
    return { id: group, tier: "" };
  }
  anObject("group", group);
  return { id: text("group.id", group.id), tier: text("group.tier", group.tier ?? "") };
}

/** Of these the message carries one; the others would be lost in silence. */
function onlyOne(given: Record<string, unknown>): void {
  if (Object.values(given).filter((value) => value !== undefined).length > 1) {
    throw new Error(`${Object.keys(given).join(" and ")} exclude each other: give one`);
  }
}

/** A word that nobody reads would be lost in silence too. */
function onlyKnown(what: string, given: object, known: ReadonlySet<string>): void {
  anObject(what, given);
  for (const name of Object.keys(given)) {
    if (!known.has(name)) {
      const hint = OPTIONS.has(name) ? `: say options: { ${name} }` : "";
      throw new Error(`${what} has no ${JSON.stringify(name)}${hint}`);
    }
  }
}

/** In JavaScript anything may stand where fields are wanted: a number would count as none, and its job be stored without data. */
function anObject(what: string, given: object): void {
  if (typeof given !== "object" || given === null) {
    throw new Error(`${what} is an object, not ${given === null ? "null" : typeof given}`);
  }
}

/** Returns a text; throws an Error for what is none, which JavaScript would write as `undefined` or `[object Object]`. */
function text(name: string, value: string): string {
  if (typeof value !== "string") {
    throw new Error(`${name} is a text, not ${value === null ? "null" : typeof value}`);
  }
  return value;
}

/** Protobuf's own words for headers that are no strings help nobody. */
function checkedHeaders(headers: Readonly<Record<string, string>>): Record<string, string> {
  anObject("headers", headers);
  for (const [name, value] of Object.entries(headers)) {
    if (typeof value !== "string") {
      throw new Error(`headers are strings, not ${JSON.stringify(name)}: ${JSON.stringify(value)}`);
    }
  }
  return headers;
}

function integer(name: string, value: number | undefined): number | undefined {
  if (value !== undefined && !Number.isInteger(value)) {
    throw new Error(`${name} is a whole number, not ${String(value)}`);
  }
  return value;
}

/** What became of one job of a Publish call. */
export function publishedFrom({ jobId, created, reason, metJobId, dataDiffers }: PublishResult): Published {
  return { jobId, created, reason: created ? "" : (NOT_CREATED.get(reason) ?? "other"), metJobId, dataDiffers };
}

/** The rules of a job or queue, as they travel. */
function optionsMessage(options: JobOptions): v1.JobOptions {
  onlyKnown("options", options, OPTIONS);
  const span = (seconds: number | undefined) => (seconds === undefined ? undefined : toDuration(seconds));
  return {
    retryLimit: integer("retryLimit", options.retryLimit),
    retryDelay: span(options.retryDelay),
    retryBackoff: options.retryBackoff,
    retryDelayMax: span(options.retryDelayMax),
    expireIn: span(options.expireIn),
    retention: span(options.retention),
    deadLetter: options.deadLetter,
  };
}

/** The rules of a job or queue. */
function optionsFrom(message: v1.JobOptions | undefined): JobOptions {
  const span = (duration: v1.JobOptions["retryDelay"]) => (duration === undefined ? undefined : fromDuration(duration));
  return {
    retryLimit: message?.retryLimit,
    retryDelay: span(message?.retryDelay),
    retryBackoff: message?.retryBackoff,
    retryDelayMax: span(message?.retryDelayMax),
    expireIn: span(message?.expireIn),
    retention: span(message?.retention),
    deadLetter: message?.deadLetter,
  };
}

/** A state, also one that is newer than this client. */
function stateFrom(number: StateNumber): JobState {
  return STATES.get(number) ?? "unspecified";
}

/** A job. */
export function jobInfoFrom<Data, Output>(job: v1.Job): JobInfo<Data, Output> {
  const state = stateFrom(job.state);
  return {
    queue: job.queue,
    id: job.id,
    state,
    finished: FINISHED.has(state),
    data: fromJson(job.data) as Data,
    headers: { ...job.headers },
    priority: job.priority,
    options: optionsFrom(job.options),
    attempt: job.attempt,
    retryCount: job.retryCount,
    lossCount: job.lossCount,
    releaseCount: job.releaseCount,
    progress: job.progress ? { fraction: job.progress.fraction ?? null, note: job.progress.note } : null,
    output: fromJson(job.output) as Output | null,
    errors: job.errors.map(jobErrorFrom),
    createTime: dateFrom(job.createTime),
    startAfter: dateFrom(job.startAfter),
    startTime: job.startTime ?? null,
    finishTime: job.finishTime ?? null,
    worker: job.worker,
    sessionId: job.sessionId,
    cancelRequested: job.cancelRequested,
    revision: job.revision,
    checkpoint: fromJson(job.checkpoint),
    key: job.key,
    group: job.group ? { id: job.group.id, tier: job.group.tier } : null,
    waitsFor: job.waitsFor,
    origin: job.origin ? originFrom(job.origin) : null,
  };
}

/** Where a job comes from. */
export function originFrom(origin: v1.JobOrigin): JobOrigin {
  return {
    queue: origin.queue,
    jobId: origin.jobId,
    createTime: dateFrom(origin.createTime),
    failTime: dateFrom(origin.failTime),
    attempts: origin.attempts,
    lastError: origin.lastError ? jobErrorFrom(origin.lastError) : null,
    firstQueue: origin.firstQueue,
    firstJobId: origin.firstJobId,
    redrives: origin.redrives,
  };
}

/** A point in time that the server always names. */
function dateFrom(moment: Date | undefined): Date {
  return moment ?? new Date(0);
}

function jobErrorFrom(error: v1.JobError): JobError {
  return {
    attempt: error.attempt,
    time: dateFrom(error.time),
    type: error.type,
    message: error.message,
    trace: error.trace,
    worker: error.worker,
    startTime: error.startTime ?? null,
  };
}
