// GET /jobs/:id: where a job stands. GET /jobs/:id/events: the same as a stream of server-sent events, until it is finished.
// DELETE /jobs/:id: cancels it.
//
// A service with users checks here whose job it is: keep the ids of a user's jobs in your own tables, as a screening does.

import { PassThrough } from "node:stream";
import type { FastifyInstance } from "fastify";
import type { Client, JobInfo } from "jobwire";

const BEAT_MS = 15_000;
const PARAMS = { type: "object", properties: { id: { type: "string", format: "uuid" } } } as const;

interface Params {
  id: string;
}

export async function jobRoutes(app: FastifyInstance, { client }: { client: Client }) {
  const closing = new AbortController();
  app.addHook("preClose", () => closing.abort());

  app.get<{ Params: Params }>("/jobs/:id", { schema: { params: PARAMS } }, async (request) =>
    view(await client.getJob(request.params.id)),
  );

  app.delete<{ Params: Params }>("/jobs/:id", { schema: { params: PARAMS } }, async (request, reply) => {
    const { id } = request.params;
    const { queue } = await client.getJob(id);
    await client.admin.cancelJobs({ queue, jobIds: [id] });
    // One that waited is cancelled now, and what had finished stays as it is. The worker of one that runs is told, and has
    // the last word: its answer shows in the job's state.
    const job = await client.getJob(id, { queue });
    return reply.code(job.finished ? 200 : 202).send(view(job));
  });

  app.get<{ Params: Params }>("/jobs/:id/events", { schema: { params: PARAMS } }, async (request, reply) => {
    const { id } = request.params;
    await client.getJob(id); // one that does not exist is a 404, not a stream
    const left = new AbortController();
    reply.raw.once("close", () => left.abort());
    const stream = new PassThrough();
    // A comment now and then keeps proxies from ending a stream that has nothing new to say.
    const beat = setInterval(() => stream.write(":\n\n"), BEAT_MS);
    client
      .wait(id, {
        signal: AbortSignal.any([left.signal, closing.signal]),
        onChange: (job) => stream.write(`data: ${JSON.stringify(view(job))}\n\n`),
      })
      .catch((error) => {
        if (!left.signal.aborted && !closing.signal.aborted) request.log.warn(error);
      })
      .finally(() => {
        clearInterval(beat);
        stream.end();
      });
    // Each stream has a connection of its own, so that its end is the end of both.
    return reply.headers({ "cache-control": "no-store", connection: "close" }).type("text/event-stream").send(stream);
  });
}

/** A job as our users see it: nothing of its payload, its traces or its workers. A note is of interest while the job runs. */
function view(job: JobInfo) {
  return {
    jobId: job.id,
    queue: job.queue,
    state: job.state,
    progress: job.state === "completed" ? 1 : (job.progress?.fraction ?? 0),
    note: job.finished ? "" : job.cancelRequested ? "being cancelled" : (job.progress?.note ?? ""),
    output: job.output ?? null,
    error: job.state === "failed" ? reason(job) : null,
  };
}

/** Only what a handler gave up with on purpose is written for users; the text of any other error is ours to read. */
function reason(job: JobInfo): string {
  const last = job.errors.at(-1);
  return last?.type === "FailForGood" ? last.message : "It failed for a reason on our side.";
}
