// The server process: `npm start`. It answers at once; whatever takes long is a job.
//
// SIGTERM stops it in order: it takes no more connections, finishes the requests that it has, ends the streams of
// progress (a browser connects again, to whatever answers by then), and closes what it holds. Jobs do not notice.

import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import multipart from "@fastify/multipart";
import Fastify from "fastify";
import { Client } from "jobwire";
import { readConfig } from "./config.js";
import { wordJudge } from "./judge.js";
import { errorHandler } from "./routes/errors.js";
import { excelRoutes } from "./routes/excel.js";
import { jobRoutes } from "./routes/jobs.js";
import { screeningRoutes } from "./routes/screenings.js";
import { openStore } from "./store.js";

const config = readConfig();
await mkdir(join(config.storage, "uploads"), { recursive: true });
const store = await openStore(config);
// A browser waits for the answer: better a quick "come again" than many tries.
const client = new Client(config.jobwire, { ...config.connection, timeout: 5 });

const app = Fastify({ logger: { level: "warn" }, requestTimeout: 120_000 });
app.setErrorHandler(errorHandler);
app.register(multipart);
app.register(excelRoutes, { client, storage: config.storage });
app.register(jobRoutes, { client });
app.register(screeningRoutes, { store, judge: wordJudge(config.judgeSeconds) });
app.get("/", async (_request, reply) =>
  reply.type("text/html").send(await readFile(new URL("../public/index.html", import.meta.url))),
);
let closing = false;
app.addHook("preClose", async () => {
  closing = true;
});
app.addHook("onSend", async (_request, reply) => {
  // Otherwise the client would keep the connection for a next request, and the server would wait for its end.
  if (closing) reply.header("connection", "close");
});
app.addHook("onClose", async () => {
  await client.close();
  await store.close();
});

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  // Only once: a second signal ends the process at once, as it does by default.
  process.once(signal, () => app.close());
}
const address = await app.listen({ host: config.host, port: config.port });
console.log(`serving on ${address} with ${config.store}, process ${process.pid}`);
