// The worker process: `npm run worker`, as often as there is work for. SIGTERM lets running jobs finish for the grace,
// then gives them back; another worker goes on from their checkpoint.

import { Worker } from "jobwire";
import { readConfig } from "./config.js";
import { wordJudge } from "./judge.js";
import { SCREENINGS, screeningHandler } from "./screening-job.js";
import { openStore } from "./store.js";

const config = readConfig();
const store = await openStore(config);
const worker = new Worker(config.jobwire, { ...config.connection, stopGrace: config.stopGrace });
worker.handler(SCREENINGS, { concurrency: 2 }, screeningHandler(store, wordJudge(config.judgeSeconds)));
console.log(`working on ${SCREENINGS} of ${config.jobwire}, with ${config.store}, process ${process.pid}`);
try {
  await worker.run();
} finally {
  await store.close();
}
