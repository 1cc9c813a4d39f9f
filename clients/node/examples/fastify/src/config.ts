// What the environment says. Both processes, the server and the worker, read it once, at their start.

import { readFileSync } from "node:fs";

export interface Config {
  /** The application's own database, in which Jobwire's schema lies too: that is what lets one transaction span both. */
  databaseUrl: string;
  /** Host and port of the Jobwire server. */
  jobwire: string;
  /** How to speak to it: with a token, and encrypted, if it asks for that. */
  connection: { token?: string; tls?: { ca: Buffer } };
  /** The folder of uploads, which the Excel worker reads as well. */
  storage: string;
  /** Where the server listens. */
  host: string;
  port: number;
  store: "pg" | "prisma";
  /** How long the worker lets running jobs finish after SIGTERM, in seconds. Then they are given back. */
  stopGrace: number;
  /** How long the judge thinks about an item, in seconds. */
  judgeSeconds: number;
}

export function readConfig(env: NodeJS.ProcessEnv = process.env): Config {
  const databaseUrl = env.DATABASE_URL;
  if (!databaseUrl) {
    throw new Error(
      "DATABASE_URL is not set: it names the application's PostgreSQL, postgresql://user:password@host/db",
    );
  }
  const store = env.STORE ?? "pg";
  if (store !== "pg" && store !== "prisma") {
    throw new Error(`STORE is ${JSON.stringify(store)}: it must be "pg" or "prisma"`);
  }
  const listen = env.LISTEN ?? "127.0.0.1:3000";
  const [, host, port] = /^(.+):(\d+)$/.exec(listen) ?? [];
  if (host === undefined) {
    throw new Error(`LISTEN is ${JSON.stringify(listen)}: it must be host:port, such as 0.0.0.0:3000`);
  }
  return {
    databaseUrl,
    jobwire: env.JOBWIRE_SERVER ?? "127.0.0.1:50051",
    connection: {
      ...(env.JOBWIRE_TOKEN && { token: env.JOBWIRE_TOKEN }),
      ...(env.JOBWIRE_CA_FILE && { tls: { ca: readFileSync(env.JOBWIRE_CA_FILE) } }),
    },
    storage: env.STORAGE ?? "storage",
    host,
    port: Number(port),
    store,
    stopGrace: number(env, "STOP_GRACE", 25),
    judgeSeconds: number(env, "JUDGE_SECONDS", 0.02),
  };
}

function number(env: NodeJS.ProcessEnv, name: string, otherwise: number): number {
  const value = Number(env[name] ?? otherwise);
  if (!Number.isFinite(value) || value < 0) {
    throw new Error(`${name} is ${JSON.stringify(env[name])}: it must be a number, 0 or more`);
  }
  return value;
}
