// The Node client's driver for the conformance suite: does what a line of standard input says, by the public API.
//
// tests/conformance/README.md describes the lines. Always holds: an answer for each request, whatever it asked; nothing but
// lines of JSON on standard output.

import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import {
  Client,
  type ClientOptions,
  FailForGood,
  type Job,
  type JobCancelled,
  type JobInfo,
  JobwireError,
  type Logger,
  NotFound,
  ReleaseJob,
  RetryIn,
  Worker,
} from "jobwire";

const CLAIMS = [
  ...["publish", "republish", "oversize"],
  ...["deliver", "ack", "fail", "retry", "progress", "sigterm"],
  ...["stale-lease", "extend", "cancel", "slow-reader"],
  ...["resume-after-cut", "resume-elsewhere", "peer-vanishes", "drain", "server-restart", "storm"],
  ...["bad-token", "tls", "no-tls", "wrong-port", "older-server", "newer-server", "draining-server", "gone-server"],
  ...["refused-progress", "checkpoint-first", "unanswered-stop", "lost-lease", "unsure-credits", "receipt"],
];

// biome-ignore lint/suspicious/noExplicitAny: a line is what the suite says
type Request = any;

/** A handler that has started and waits to be told how to end. */
interface Run {
  job: Job;
  end(output: unknown): void;
  fail(error: Error): void;
}

/** Answers requests; keeps one connection, one worker, and the handlers that run. */
class Driver {
  #client: Client | undefined;
  #target = "";
  #connection: ClientOptions = {};
  #worker: Worker | undefined;
  #work: Promise<void> | undefined;
  #stopAsked = false;
  #deaf = false;
  readonly #runs = new Map<string, Run>();

  /** Does what a line says, and says what came of it. */
  async answer(line: string): Promise<void> {
    const request: Request = JSON.parse(line);
    try {
      say({ id: request.id, result: await this.#do(request) });
    } catch (error) {
      if (!(error instanceof JobwireError)) console.error(error);
      say({ id: request.id, error: told(error) });
    }
  }

  /** Ends what goes on, at once. */
  async close(): Promise<void> {
    this.#stopAsked = true;
    await this.#worker?.stop({ now: true }).catch(() => {});
    await this.#client?.close();
  }

  async #do(request: Request): Promise<unknown> {
    switch (request.do) {
      case "about":
        return { client: "node", form: "resuming", claims: CLAIMS };
      case "connect":
        return this.#connect(request);
      case "publish":
        return this.#publish(request);
      case "get":
        return shown(await this.#open.getJob(request.job_id, { queue: request.queue }));
      case "wait":
        return shown(await this.#open.wait(request.job_id, { queue: request.queue, timeout: request.timeout }));
      case "work":
        return this.#startToWork(request);
      case "end":
        return this.#end(request);
      case "progress": {
        const { fraction = null, note, checkpoint } = request;
        await this.#run(request).job.progress(fraction, note, { checkpoint });
        return {};
      }
      case "extend":
        await this.#run(request).job.extend(request.seconds);
        return {};
      case "stop":
        this.#stopAsked = true;
        await this.#worker?.stop({ now: request.now ?? false });
        await this.#work;
        return {};
      default:
        throw new Error(`nothing is known of ${request.do}`);
    }
  }

  async #connect({ target, timeout, ca_file, token }: Request): Promise<unknown> {
    await this.#client?.close();
    this.#target = target;
    this.#connection = { token, tls: ca_file === undefined ? undefined : { ca: await readFile(ca_file) } };
    this.#client = new Client(target, { ...this.#connection, timeout });
    return {};
  }

  async #publish({ queue, jobs }: Request): Promise<unknown> {
    const asked = jobs.map(({ data, id, priority, start_in, retry_limit, retry_delay, expire_in }: Request) => ({
      data,
      id,
      priority,
      startIn: start_in,
      options: { retryLimit: retry_limit, retryDelay: retry_delay, expireIn: expire_in },
    }));
    const results = (await this.#open.publishMany(queue, asked)).map(({ jobId, created, reason, dataDiffers }) => ({
      job_id: jobId,
      created,
      reason: reason.toUpperCase(),
      data_differs: dataDiffers,
    }));
    return { results };
  }

  async #startToWork(request: Request): Promise<unknown> {
    const { queue, concurrency, name, stop_grace, heartbeat_interval, resume_grace, deaf = false } = request;
    this.#deaf = deaf;
    this.#worker = new Worker(this.#target, {
      ...this.#connection,
      name,
      stopGrace: stop_grace,
      heartbeatInterval: heartbeat_interval,
      resumeGrace: resume_grace,
      logger,
    });
    this.#worker.handler(queue, { concurrency }, (job) => this.#handle(job));
    this.#work = this.#seeThrough(this.#worker);
    return {};
  }

  async #seeThrough(worker: Worker): Promise<void> {
    try {
      await worker.run();
    } catch (error) {
      say({ event: "worker_ended", error: told(error) });
      return;
    }
    say({ event: "worker_ended", error: null });
    // Nobody asked for it by a line, so it was a signal.
    if (!this.#stopAsked) await finish(this);
  }

  async #handle(job: Job): Promise<unknown> {
    const { id, attempt, data, checkpoint, signal } = job;
    try {
      return await new Promise((end, fail) => {
        this.#runs.set(id, { job, end, fail });
        signal.addEventListener("abort", () => {
          say({ event: "stopping", job_id: id, reason: (signal.reason as JobCancelled).reason });
          if (!this.#deaf) fail(signal.reason);
        });
        say({ event: "started", job_id: id, attempt, data, checkpoint });
      });
    } finally {
      if (this.#runs.get(id)?.job === job) this.#runs.delete(id);
    }
  }

  #end(request: Request): unknown {
    const run = this.#run(request);
    this.#runs.delete(request.job_id); // a handler ends once
    if (request.as === "complete") run.end(request.output);
    else run.fail(request.as === "release" ? new ReleaseJob(request.delay ?? undefined) : failure(request));
    return {};
  }

  get #open(): Client {
    if (this.#client === undefined) throw new Error("connect first");
    return this.#client;
  }

  #run(request: Request): Run {
    const run = this.#runs.get(request.job_id);
    if (run === undefined) throw new NotFound(`no handler of job ${request.job_id} runs`);
    return run;
  }
}

/** What a handler throws that fails as a request says. */
function failure({ type = "Failure", message = "", permanent, retry_in }: Request): Error {
  const plain = () => (retry_in == null ? new Error(message) : new RetryIn(retry_in, message));
  const error = permanent ? new FailForGood(message) : plain();
  error.name = type;
  return error;
}

/** An error, as a user of the client sees it. */
function told(error: unknown): unknown {
  if (error instanceof JobwireError) return { code: error.code, reason: error.reason, message: error.message };
  return { code: "UNKNOWN", reason: "", message: String(error) };
}

/** What the suite looks at in a job. */
function shown({ state, attempt, retryCount, output, errors }: JobInfo): unknown {
  const failures = errors.map(({ type, message }) => ({ type, message }));
  return { job: { state, attempt, retry_count: retryCount, output, errors: failures } };
}

function say(line: unknown): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

const warn = (message: string) => {
  console.error(message);
  say({ event: "warning", message });
};
const note = (message: string) => console.error(message);
const logger: Logger = { debug() {}, info: note, warn, error: warn };

async function finish(driver: Driver): Promise<void> {
  await driver.close();
  process.exit(0);
}

const driver = new Driver();
createInterface({ input: process.stdin })
  .on("line", (line) => void driver.answer(line))
  .on("close", () => void finish(driver));
