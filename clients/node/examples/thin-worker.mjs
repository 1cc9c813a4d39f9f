// Works on jobs with the generated stubs alone, one after the other: node examples/thin-worker.mjs 127.0.0.1:50051 mail
//
// It does not resume: when its connection breaks it ends, and what it held is given back after 15 s. Each event is answered by an Ack; three
// heartbeats, which it answers between two jobs, cover its longest one.

import { promisify } from "node:util";
import { credentials } from "@grpc/grpc-js";
import { AckRequest, QueueServiceClient, SubscribeRequest } from "jobwire/v1";

async function work(data) {
  console.log("working on", data);
  return '{"sent": true}';
}

const [target, queue] = process.argv.slice(2);
const jobwire = new QueueServiceClient(target, credentials.createInsecure());
const ack = promisify(jobwire.ack).bind(jobwire);
const terms = SubscribeRequest.fromPartial({ queues: [queue], heartbeatInterval: { seconds: 60 } });
let sessionId = "";
for await (const { sequence, event } of jobwire.subscribe(terms)) {
  if (event?.$case === "opened") sessionId = event.value.sessionId;
  const items = [];
  for (const { handle, data } of event?.$case === "deliveries" ? event.value.deliveries : []) {
    items.push({ handle, outcome: { $case: "complete", value: { output: await work(data) } } });
  }
  await ack(AckRequest.fromPartial({ sessionId, items, lastSequence: sequence }));
}
