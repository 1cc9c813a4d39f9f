// What `import { … } from "jobwire"` offers: publishing, waiting, working, operating, and what goes wrong in them.

export type { Admin, AdminCallOptions } from "./admin.js";
export type { BatchHandler } from "./batching.js";
export { Client, type ClientOptions, type PublishOptions } from "./client.js";
export type { Tls, Token } from "./connection.js";
export {
  Aborted,
  type Code,
  DeadlineExceeded,
  type ErrorTerms,
  FailedPrecondition,
  type FieldViolation,
  InternalError,
  InvalidArgument,
  JobwireError,
  NotFound,
  Overloaded,
  PermissionDenied,
  QueueFull,
  ResourceExhausted,
  Unauthenticated,
  Unavailable,
  Unimplemented,
} from "./errors.js";
export { BatchJob, Job, type JobFields } from "./job.js";
export type { Logger } from "./logging.js";
export * from "./model.js";
export type { Handler } from "./running.js";
export type { QueueShare, Queues } from "./shares.js";
export { FailForGood, JobCancelled, ReleaseJob, RetryIn, type StopReason } from "./signals.js";
export { newJobId } from "./wire.js";
export { type BatchOptions, type HandlerOptions, Worker, type WorkerOptions } from "./worker.js";
