// The package as others get it: packed, installed in a fresh folder, imported both ways, its types checked, its README run.

import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { ServerCredentials } from "@grpc/grpc-js";
import { Client } from "jobwire";
import { until } from "./scripted.js";
import { freshQueue, Relay, SERVER } from "./serving.js";

const run = promisify(execFile);

const README = readFileSync("README.md", "utf8");
const CERTIFICATES = process.env.TEST_CERTIFICATES ?? "";
const LIMIT = { timeout: 120_000 };

let folder = "";

/** Runs a program of the fresh folder; returns what it printed. */
async function node(...args: string[]): Promise<string> {
  return (await run(process.execPath, args, { cwd: folder, ...LIMIT })).stdout;
}

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "jobwire-package-"));
  const { stdout } = await run("npm", ["pack", "--json", "--pack-destination", folder], LIMIT);
  const [{ filename, files }] = JSON.parse(stdout);
  const packed: string[] = files.map(({ path }: { path: string }) => path);
  assert.deepEqual(
    packed.filter(
      (path) =>
        !/^(package\.json|README\.md|LICENSE|dist\/(esm|cjs)\/.*\.(js|d\.ts)|dist\/(esm|cjs)\/package\.json)$/.test(
          path,
        ),
    ),
    [],
  );
  writeFileSync(join(folder, "package.json"), '{ "name": "consumer", "private": true, "type": "module" }');
  const { devDependencies } = JSON.parse(readFileSync("package.json", "utf8"));
  const types = `@types/node@${devDependencies["@types/node"]}`;
  await run("npm", ["install", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund", filename, types], {
    cwd: folder,
    ...LIMIT,
  });
});

after(() => rmSync(folder, { recursive: true, force: true }));

const USE = `
  const client = new Client(${JSON.stringify(SERVER)});
  client.publish(${JSON.stringify(freshQueue())}, 1).then(({ created }) => {
    console.log(created, typeof Worker, typeof createJobQueue().push, QueueServiceService.ack.path);
    return client.close();
  });
`;
const USED = "true function function /jobwire.v1.QueueService/Ack\n";

test("it can be imported", async () => {
  const source = `
    import { Client, Worker } from "jobwire";
    import { createJobQueue } from "jobwire/job-queue";
    import { QueueServiceService } from "jobwire/v1";
  `;
  writeFileSync(join(folder, "use.mjs"), source + USE);
  assert.equal(await node("use.mjs"), USED);
});

test("it can be required", async () => {
  const source = `
    const { Client, Worker } = require("jobwire");
    const { createJobQueue } = require("jobwire/job-queue");
    const { QueueServiceService } = require("jobwire/v1");
  `;
  writeFileSync(join(folder, "use.cjs"), source + USE);
  assert.equal(await node("use.cjs"), USED);
});

/** Compiles programs of the fresh folder as a strict consumer would. */
async function compile(module: string, resolution: string, ...files: string[]): Promise<void> {
  const options = ["--strict", "--noUncheckedIndexedAccess", "--exactOptionalPropertyTypes", "--target", "es2022"];
  const tsc = join(process.cwd(), "node_modules/typescript/bin/tsc");
  await node(tsc, ...options, "--types", "node", "--module", module, "--moduleResolution", resolution, ...files).catch(
    (error) => assert.fail(error.stdout),
  );
}

const TYPED = `
  const client: Client = new Client("127.0.0.1:1", { token: () => "t", tls: { ca: "-----BEGIN" } });
  export const use = async (signal: AbortSignal): Promise<number | null> => {
    await client.publish<{ fileKey: string }>("q", { fileKey: "a" }, { startAfter: new Date(), group: { id: "a" }, signal });
    // @ts-expect-error: options of the job stand in \`options\`
    await client.publish("q", 1, { retryLimit: 1 });
    // @ts-expect-error: the payload is typed
    await client.publish<{ fileKey: string }>("q", { fileKey: 1 });
    const job = await client.getJob<{ fileKey: string }, { rows: number }>("id");
    const { results } = await client.admin.cancelJobs({ queue: "q", jobIds: ["id"] }, { timeout: 5, signal });
    const told: boolean = results.some(({ status }) => status === CancelStatus.REQUESTED);
    // @ts-expect-error: no request has that
    await client.admin.cancelJobs({ queue: "q", jobids: [told] });
    const { jobs, nextPageToken } = await client.admin.listJobs({ filter: { createdFrom: new Date() } });
    for (const { id, createTime } of jobs) console.log(id, createTime?.getTime(), nextPageToken.length);
    return job.output && job.output.rows + job.data.fileKey.length;
  };
  // With exactOptionalPropertyTypes too, what may be left out may be undefined.
  export const perhaps = async (client: Client, queue?: string, timeout?: number, signal?: AbortSignal, ca?: string) => {
    await client.publish("q", 1, { signal, priority: timeout, options: { expireIn: timeout } });
    await client.publishMany("q", [{ data: 1, key: queue }], { signal, onProgress: undefined });
    await client.getJob("id", { queue, signal });
    await client.wait("id", { queue, timeout, signal, onChange: undefined });
    new Client("q", { timeout, tls: { ca }, token: queue });
    new Worker("q", { name: queue, stopGrace: timeout }).handler({ queue: "q", weight: timeout }, { concurrency: timeout }, () => {});
  };
  export const worker = new Worker("q").handler<{ n: number }, string>("q", { concurrency: 2 }, async (job) => {
    job.signal.throwIfAborted();
    return String(job.data.n + 1);
  });
  export const told = (error: unknown): string => (error instanceof JobwireError ? error.code : "");
  export const pushed: Promise<string | null> = jobQueue.push("q", { n: 1 }, { singletonKey: "a" });
`;

test("its types hold for strict consumers of both kinds", async () => {
  const imports = `
    import { Client, JobwireError, Worker } from "jobwire";
    import { jobQueue } from "jobwire/job-queue";
    import { CancelStatus, type PublishRequest } from "jobwire/v1";
    export type Request = PublishRequest;
  `;
  writeFileSync(join(folder, "typed.mts"), imports + TYPED);
  writeFileSync(join(folder, "typed.cts"), imports + TYPED);
  await compile("nodenext", "nodenext", "--noEmit", "typed.mts", "typed.cts");
  await compile("esnext", "bundler", "--noEmit", "typed.mts");
});

/** The README's programs by name, on this server and on queues that nobody else has. */
function programs(): Map<string, string> {
  const queues = new Map<string, string>();
  const found = [...README.matchAll(/^```(?:ts|js)\n\/\/ ([\w-]+\.ts)\n(.*?)^```$/gms)];
  assert.equal(found.length, README.match(/^```(ts|js)$/gm)?.length, "each program's first line is its name");
  return new Map(
    found.map(([, name = "", source = ""]) => {
      const text = source
        .replaceAll("127.0.0.1:50051", SERVER)
        .replace(/"(excel_parse|mail|greetings)"/g, (_, queue) => {
          if (!queues.has(queue)) queues.set(queue, freshQueue());
          return JSON.stringify(queues.get(queue));
        });
      return [name, text];
    }),
  );
}

interface Running {
  child: ChildProcess;
  said: () => string;
}

function started(file: string): Running {
  const env = { ...process.env, JOBWIRE_SERVER: SERVER };
  const child = spawn(process.execPath, [file], { cwd: folder, env, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on("data", (chunk) => {
      said += chunk;
    });
  }
  return { child, said: () => said };
}

async function ends({ child, said }: Running): Promise<string> {
  const [code] = await once(child, "close");
  assert.equal(code, 0, said());
  return said();
}

test("the README's programs compile and do what it says", async (t) => {
  const sources = programs();
  const relay = new Relay();
  t.after(() => relay.stop());
  if (CERTIFICATES !== "") {
    const pem = (name: string) => readFileSync(join(CERTIFICATES, name));
    writeFileSync(join(folder, "ca.pem"), pem("ca.pem"));
    writeFileSync(join(folder, "token.txt"), "secret\n");
    const pair = { private_key: pem("key.pem"), cert_chain: pem("cert.pem") };
    await relay.start(ServerCredentials.createSsl(null, [pair]));
  }
  for (const [name, source] of sources) {
    writeFileSync(join(folder, name), source.replaceAll("jobwire.example:50051", relay.target));
  }
  await compile("nodenext", "nodenext", ...sources.keys());

  const worker = started("worker.js");
  t.after(() => worker.child.kill("SIGKILL"));
  const published = await ends(started("publish.js"));
  assert.match(published, /^completed 1000 \[\]$/m);
  assert.match(await ends(started("job-queue.js")), /completed \{ text: 'Hello Ada' \}\n0\n/);
  assert.match(await ends(started("operate.js")), /^true\nfalse \d+\n$/);
  assert.match(await ends(started("errors.js")), /^DATA_TOO_LARGE jobs\[0\]\.data$/m);
  assert.match(await ends(started("stubs.js")), /^\S+ \d+$/m);
  if (CERTIFICATES !== "") {
    assert.match(await ends(started("secure.js")), /^true$/m);
    assert.deepEqual(relay.tokens, ["Bearer secret"]);
  }

  // The mails were worked on too, in batches.
  const client = new Client(SERVER);
  t.after(() => client.close());
  const mail = /publish\("([^"]+)", \{ to:/.exec(sources.get("publish.ts") ?? "")?.[1] ?? "";
  const { jobId } = await client.publish(mail, { to: "nobody" });
  assert.equal((await client.wait(jobId, { queue: mail, timeout: 60 })).errors[0]?.message, "not an address");
  worker.child.kill("SIGTERM");
  await ends(worker);
  await until("it is over", () => worker.child.exitCode === 0);
});
