// The generated stubs, for a client of your own making: `import { QueueServiceClient } from "jobwire/v1"`.

export * from "./generated/google/protobuf/duration.js";
export * from "./generated/jobwire/v1/admin_service.js";
export * from "./generated/jobwire/v1/dead_letters.js";
export * from "./generated/jobwire/v1/job.js";
export * from "./generated/jobwire/v1/operations.js";
export * from "./generated/jobwire/v1/queue_service.js";
export * from "./generated/jobwire/v1/schedule.js";
export * from "./generated/jobwire/v1/session.js";
