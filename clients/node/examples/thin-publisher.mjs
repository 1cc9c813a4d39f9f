// Publishes a job with the generated stubs alone, and prints its id: node examples/thin-publisher.mjs 127.0.0.1:50051 mail '{"to": "a@example.org"}'

import { promisify } from "node:util";
import { credentials } from "@grpc/grpc-js";
import { PublishRequest, QueueServiceClient } from "jobwire/v1";
import { uuidv7 } from "uuidv7";

const [target, queue, data] = process.argv.slice(2);
const jobwire = new QueueServiceClient(target, credentials.createInsecure());
const publish = promisify(jobwire.publish).bind(jobwire);
// With an id of our own the call may be repeated: the job is stored once.
const { results } = await publish(PublishRequest.fromPartial({ queue, jobs: [{ id: uuidv7(), data }] }));
console.log(results[0].jobId);
jobwire.close();
