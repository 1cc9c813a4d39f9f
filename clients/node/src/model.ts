// What callers hand in and get back: plain values. What is not there is null, so that it stays visible as JSON.

/** Where a job stands; `unspecified` is a state that this version of the client does not know. */
export type JobState =
  | "created" // waits for its first delivery
  | "retry" // waits for another delivery
  | "active" // is with a worker
  | "completed"
  | "cancelled"
  | "failed" // out of retries, failed for good, or given up as a poison job
  | "blocked" // waits for something other than time
  | "unspecified";

/** Why a job was not stored; empty if it was, `other` for a reason that this version of the client does not know. */
export type NotCreatedReason =
  | ""
  | "duplicate_id" // a job of this id is in the queue already, or finished lately
  | "policy" // the queue's policy allows no further job of its key now
  | "throttled" // there was one of its key in this slot of time
  | "debounced" // there is one of its key for the next slot of time already
  | "not_unique" // there was one of its key lately
  | "other";

/** The rules a job lives by. What is left out: as the queue says. Spans are seconds. */
export interface JobOptions {
  /** How often a failed job is tried again: 0 to 1000, default 2. */
  retryLimit?: number | undefined;
  /** Pause before a retry: 0 s to 7 days, default 1 s. */
  retryDelay?: number | undefined;
  /** Whether the pause doubles with each retry, with jitter. Default true. */
  retryBackoff?: boolean | undefined;
  /** Upper bound of a pause that doubles: 0 s to 7 days, default 1 hour. */
  retryDelayMax?: number | undefined;
  /** How long one run may take: 1 s to 7 days, default 15 minutes. `job.extend` moves it. */
  expireIn?: number | undefined;
  /** How long a finished job is kept, exact to the day: 0 s to 3650 days, default 7 days. */
  retention?: number | undefined;
  /** The queue in which a job that failed for good is published anew; empty: none, whatever the queue says. */
  deadLetter?: string | undefined;
}

/** Whom a job is done for: a tenant, a customer, a user. */
export interface Group {
  /** 1 to 200 characters. */
  id: string;
  /** The kind of group, by which a queue may have another limit for it; empty: none. */
  tier?: string | undefined;
}

/** What may be said of a job beside its data. Spans are seconds. */
export interface JobTerms {
  /** UUID, by which publishing can be repeated safely. Left out: one of version 7. */
  id?: string | undefined;
  /** Higher is delivered first: -32768 to 32767, default 0. */
  priority?: number | undefined;
  /** Not before this point in time, compared with the database's clock. */
  startAfter?: Date | undefined;
  /** Not before this pause from now. Either this or `startAfter`. */
  startIn?: number | undefined;
  /** Carried unread, such as `traceparent`: at most 20, values up to 1,000 characters. */
  headers?: Readonly<Record<string, string>> | undefined;
  /** What differs from the queue's options. */
  options?: JobOptions | undefined;
  /** What it is about, such as an order's number: others of the same key are minded as the queue's policy says. */
  key?: string | undefined;
  /** Whom it is done for, where the queue limits groups or has them take turns; a text is the group's id. */
  group?: string | Group | undefined;
  /** Not stored if one of its key was within the same slot of time; slots of this length are counted from 1970. 1 ms to 365 days. */
  throttle?: number | undefined;
  /** The same, but the second one of a slot is stored, to start with the next slot. */
  debounce?: number | undefined;
  /** Not stored if one of its key was within this time before, whether it has finished or not. One of these three at most. */
  uniqueFor?: number | undefined;
}

/** A job to be published together with others. */
export interface NewJob<Data = unknown> extends JobTerms {
  /** The payload: what JSON.stringify takes, at most 64 KiB as JSON or what the queue allows. */
  data: Data;
}

/** What became of one published job. */
export interface Published {
  /** The id under which the work is stored: its own, or that of the job that stands in its way. */
  jobId: string;
  /** Whether this call stored it. After a repeated call false is normal: the first one did. */
  created: boolean;
  /** Why not, if it did not. */
  reason: NotCreatedReason;
  /** The job that stands in its way; empty if this one was stored. */
  metJobId: string;
  /** Whether the job that was there has another payload: most likely an id used twice by mistake. */
  dataDiffers: boolean;
}

/** What a handler last said of its own work. */
export interface Progress {
  /** Share of the work that is done, 0 to 1; null if the handler cannot tell. */
  fraction: number | null;
  /** A line for people. */
  note: string;
}

/** One run that failed. */
export interface JobError {
  /** Which delivery failed, counted from 1. */
  attempt: number;
  /** When, by the database's clock. */
  time: Date;
  /** An error's class name, `EXPIRED` (time limit), `LOST` (its worker was lost), or what the worker sent. */
  type: string;
  /** What a person should read. */
  message: string;
  /** A stack trace or other detail. */
  trace: string;
  /** The worker that ran it. */
  worker: string;
  /** When the run was delivered; null if there was none, as in `WAITED_TOO_LONG`. */
  startTime: Date | null;
}

/** The job that a dead letter was made of. A redriven job keeps the origin of its dead letter. */
export interface JobOrigin {
  /** The queue in which it failed. */
  queue: string;
  /** Its id there. */
  jobId: string;
  createTime: Date;
  failTime: Date;
  /** How often it was delivered. */
  attempts: number;
  /** What its last run failed with; on a delivered job without its trace. */
  lastError: JobError | null;
  /** If that job was a dead letter, or redriven: the queue of the first one that failed. */
  firstQueue: string;
  firstJobId: string;
  /** How often it was redriven. */
  redrives: number;
}

/** One job as it was stored and as it stood when the server answered. */
export interface JobInfo<Data = unknown, Output = unknown> {
  queue: string;
  id: string;
  state: JobState;
  /** Whether nothing more will happen to it. */
  finished: boolean;
  /** The payload, decoded. */
  data: Data;
  headers: Record<string, string>;
  priority: number;
  /** The rules in force, all of them set. */
  options: JobOptions;
  /** Deliveries so far, the running one included. */
  attempt: number;
  /** Retries used up by failures and time limits, of `options.retryLimit`. */
  retryCount: number;
  /** How often it was lost together with its worker; at 5 it is failed as poison. */
  lossCount: number;
  /** How often a worker gave it back. */
  releaseCount: number;
  /** What the current or the last run said; null if nothing. */
  progress: Progress | null;
  /** What the handler returned, decoded; null if nothing. */
  output: Output | null;
  /** The failed runs, oldest first, at most 10. */
  errors: JobError[];
  createTime: Date;
  /** Not delivered before this time. */
  startAfter: Date;
  /** When the current or the last run was delivered; null before the first. */
  startTime: Date | null;
  /** When it completed, failed or was cancelled; null before. */
  finishTime: Date | null;
  /** The worker that holds it or held it last; empty before the first delivery. */
  worker: string;
  /** The session that holds it; empty unless active. */
  sessionId: string;
  /** Whether a running job was told to stop and has not settled yet. */
  cancelRequested: boolean;
  /** Changes whenever state, attempt or progress change. */
  revision: string;
  /** What its runs left for the next one, decoded; null if nothing. */
  checkpoint: unknown;
  /** Its key, as published; empty if it has none. */
  key: string;
  /** Its group, as published. */
  group: Group | null;
  /** What a blocked job waits for: `key` or `group`, and which one. Empty otherwise. */
  waitsFor: string;
  /** Where it comes from, if it is a dead letter or was redriven. */
  origin: JobOrigin | null;
}
