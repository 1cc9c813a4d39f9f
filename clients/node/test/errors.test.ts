// What somebody reads who pointed the client at the wrong place: what is wrong, and what to do, within the timeout.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer as createHttp } from "node:http";
import { createServer as createHttp2 } from "node:http2";
import { type AddressInfo, createServer as createTcp, type Server } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { Metadata, ServerCredentials, type ServiceError, status } from "@grpc/grpc-js";
import {
  Aborted,
  Client,
  type ClientOptions,
  DeadlineExceeded,
  InvalidArgument,
  JobwireError,
  Unauthenticated,
  Unavailable,
  Unimplemented,
} from "jobwire";
import { errorFromCall } from "#src/errors.js";
import { Refusal } from "./scripted.js";
import { connected, freshQueue, relayed, SERVER } from "./serving.js";

/** A folder with a server's key.pem and cert.pem for localhost, and the ca.pem of who signed it. */
const CERTIFICATES = process.env.TEST_CERTIFICATES ?? "";
/** Host and port of the PostgreSQL that the server uses. */
const POSTGRES = process.env.TEST_POSTGRES ?? "";

const certificates = { skip: CERTIFICATES === "" && "TEST_CERTIFICATES names no folder" };
const postgres = { skip: POSTGRES === "" && "TEST_POSTGRES names no server" };

const pem = (name: string) => readFileSync(join(CERTIFICATES, name));

async function listening(t: TestContext, server: Pick<Server, "listen" | "address" | "close">): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const TIMEOUT = 2;

/** Publishes and asks, and expects the same error of both, not long after the timeout. */
async function refused(
  target: string,
  kind: new (message: string) => JobwireError,
  why: RegExp,
  options: ClientOptions = {},
) {
  const client = new Client(target, { timeout: TIMEOUT, ...options });
  const begun = performance.now();
  try {
    const calls = [client.publish("q", 1), client.getJob("01890a5d-ac96-774b-bcce-b302099a8057")];
    for (const call of await Promise.allSettled(calls)) {
      const error: unknown = call.status === "rejected" ? call.reason : call.value;
      assert.ok(error instanceof JobwireError, String(error));
      assert.equal(error.constructor, kind, error.message);
      assert.match(error.message, why);
      assert.ok(error.message.includes(target), error.message);
      assert.equal(error.message.includes("\n"), false);
    }
    // Both wait at the same time; a machine that is busy gets as much again.
    assert.ok(performance.now() - begun < 30_000);
  } finally {
    await client.close();
  }
}

const unreachable = (why: string) =>
  new RegExp(`^cannot reach Jobwire at \\S+ \\(${why}\\): is it running there, and are address and TLS right\\?$`);

test("nothing listens there", async (t) => {
  const server = createTcp();
  const target = await listening(t, server);
  await new Promise((resolve) => server.close(resolve));
  await refused(target, Unavailable, unreachable("connect ECONNREFUSED 127\\.0\\.0\\.1:\\d+"));
});

test("a server of HTTP/1 listens there", async (t) => {
  const target = await listening(
    t,
    createHttp((_, response) => response.end("hello")),
  );
  await refused(target, Unavailable, unreachable("Protocol error"));
});

test("a server of HTTP/2 that knows no gRPC listens there", async (t) => {
  const server = createHttp2((_, response) => {
    response.writeHead(404);
    response.end("what?");
  });
  const target = await listening(t, server);
  await refused(
    target,
    Unimplemented,
    /does not know this call \(.*404\): is it Jobwire, and as new as this client\?$/,
  );
});

test("PostgreSQL listens there", postgres, async () => {
  await refused(POSTGRES, Unavailable, unreachable("the connection was closed at once|.*ECONNRESET.*"));
});

test("whoever listens there says nothing", async (t) => {
  const target = await listening(
    t,
    createTcp((socket) => t.after(() => socket.destroy())),
  );
  await refused(
    target,
    DeadlineExceeded,
    /^no answer from Jobwire at \S+ (within 2 s; the job may be|in time; the call may)/,
  );
});

test("the proxy that the environment names is not there", async (t) => {
  const before = process.env.grpc_proxy;
  t.after(() => {
    if (before === undefined) delete process.env.grpc_proxy;
    else process.env.grpc_proxy = before;
  });
  process.env.grpc_proxy = "http://127.0.0.1:9";
  await refused(SERVER, Unavailable, /the proxy that grpc_proxy, https_proxy or http_proxy names/);
});

test("the name is not known", async () => {
  await refused("jobwire.invalid:50051", Unavailable, unreachable("Name resolution failed for target dns:.*"));
});

test("the client speaks TLS, the server does not", async () => {
  await refused(SERVER, Unavailable, unreachable("TLS: .*wrong version number|TLS: .*packet length too long"), {
    tls: true,
  });
});

test("the server speaks TLS, the client does not", certificates, async (t) => {
  const relay = await relayed(t, secure());
  await refused(relay.target, Unavailable, unreachable("the connection was closed at once|.*ECONNRESET.*"));
});

test("the server's certificate is not trusted", certificates, async (t) => {
  const relay = await relayed(t, secure());
  await refused(relay.target, Unavailable, unreachable("unable to (verify the first|get local issuer) certificate"), {
    tls: true,
  });
});

test("a trusted certificate, and a token with each call", certificates, async (t) => {
  const relay = await relayed(t, secure());
  let count = 0;
  const token = async () => `t-${++count}`;
  const client = connected(t, relay.target, { tls: { ca: pem("ca.pem") }, token });
  const { jobId } = await client.publish(freshQueue(), 1);
  await client.getJob(jobId);
  assert.deepEqual(relay.tokens, ["Bearer t-1", "Bearer t-2"]);
});

test("a token travels without TLS too", async (t) => {
  const relay = await relayed(t);
  await connected(t, relay.target, { token: "secret" }).publish(freshQueue(), 1);
  assert.deepEqual(relay.tokens, ["Bearer secret"]);
});

test("a wrong token is not tried again", async (t) => {
  const relay = await relayed(t);
  relay.before = () => {
    throw new Refusal(status.UNAUTHENTICATED, { reason: "UNAUTHENTICATED", text: "no such token: ask your operator" });
  };
  await assert.rejects(connected(t, relay.target, { token: "wrong" }).publish("q", 1), (error) => {
    assert.ok(error instanceof Unauthenticated);
    assert.equal(error.reason, "UNAUTHENTICATED");
    assert.equal(error.message, "no such token: ask your operator");
    return true;
  });
  assert.equal(relay.publishes.length, 1);
});

test("who gives out tokens is asked again, and then says why", async (t) => {
  const failing = () => {
    throw new Error("the vault is sealed");
  };
  const client = connected(t, SERVER, { timeout: 0.5, token: failing });
  await assert.rejects(client.publish("q", 1), (error) => {
    assert.ok(error instanceof Unavailable);
    assert.equal(error.message, "no token: the function that returns it failed (the vault is sealed)");
    return true;
  });
  let calls = 0;
  const flaky = () => {
    calls += 1;
    if (calls < 3) throw new Error("not yet");
    return "ok";
  };
  assert.equal((await connected(t, SERVER, { token: flaky }).publish(freshQueue(), 1)).created, true);
});

test("who gives out tokens and never answers holds nobody up", { timeout: 60_000 }, async () => {
  const client = new Client(SERVER, { timeout: 0.5, token: () => new Promise<string>(() => {}) });
  const id = "01890a5d-ac96-774b-bcce-b302099a8057";
  const late = { message: /^no token: .*did not answer within/ };
  await assert.rejects(client.getJob(id), late);
  await assert.rejects(client.publishMany("q", [{ data: 1 }]), late);
  await assert.rejects(client.publish("q", 1), JobwireError);
  await assert.rejects(client.wait(id, { timeout: 0.2 }), DeadlineExceeded);
  await assert.rejects(client.wait(id, { signal: AbortSignal.abort("enough") }), (reason) => reason === "enough");
  await client.close();
});

test("a token that is neither a text nor a function is not waited for", async (t) => {
  const client = connected(t, SERVER, { token: 5 as never });
  await assert.rejects(client.publish("q", 1), { name: "Unauthenticated", message: /^token: .*not number$/ });
});

test("a token that cannot travel is not shown", async (t) => {
  await assert.rejects(connected(t, SERVER, { token: "secret\n" }).publish("q", 1), (error) => {
    assert.ok(error instanceof Unauthenticated);
    assert.match(error.message, /^token: .*trim it$/);
    assert.equal(JSON.stringify(error).includes("secret"), false);
    return true;
  });
});

test("what makes no client says so at once", () => {
  const cases: [string, ClientOptions, RegExp][] = [
    ["", {}, /^target: host and port, such as 127.0.0.1:50051/],
    ["http://127.0.0.1:50051", {}, /^target: .*not "http:/],
    [undefined as unknown as string, {}, /^target: .*not undefined/],
    [SERVER, { timeout: 0 }, /^timeout: a number of seconds above 0, not 0/],
    [SERVER, { timeout: "10" as unknown as number }, /^timeout/],
    [SERVER, { tls: { ca: "/etc/ca.pem" } }, /^tls: .*PEM texts, not names of files/],
    [SERVER, { tls: { cert: "-----BEGIN CERTIFICATE-----" } }, /^tls: .*private key/],
  ];
  for (const [target, options, message] of cases) {
    assert.throws(
      () => new Client(target, options),
      (error) => {
        assert.ok(error instanceof InvalidArgument);
        assert.match(error.message, message);
        return true;
      },
    );
  }
});

const failure = (code: status, details: string, metadata = new Metadata()) =>
  Object.assign(new Error(details), { code, details, metadata }) as ServiceError;

test("an error carries what the server said, and is of the class of its code", () => {
  const refusal = new Refusal(status.ABORTED, { reason: "LOCK_TIMEOUT", text: "the row is locked", retryAfter: 0.25 });
  const error = errorFromCall(refusal as unknown as ServiceError, "here:1");
  assert.ok(error instanceof Aborted && error instanceof JobwireError && error instanceof Error);
  assert.equal(error.name, "Aborted");
  assert.equal(error.code, "ABORTED");
  assert.equal(error.reason, "LOCK_TIMEOUT");
  assert.equal(error.message, "the row is locked");
  assert.equal(error.retryAfter, 0.25);
});

test("the same trouble has the same words each time", () => {
  const text = (time: string) =>
    `No connection established. Last error: connect ECONNREFUSED 10.0.0.1:5 (${time}). Resolution note: `;
  const [first, second] = ["2026-01-02T03:04:05.678Z", "2026-01-02T03:04:06.789Z"].map(
    (time) => errorFromCall(failure(status.UNAVAILABLE, text(time)), "there:5").message,
  );
  assert.equal(first, second);
  assert.match(first ?? "", unreachable("connect ECONNREFUSED 10\\.0\\.0\\.1:5"));
});

test("codes without a class, codes that nobody knows, and details that are none", () => {
  const lost = errorFromCall(failure(status.DATA_LOSS, "gone"), "there:5");
  assert.equal(lost.constructor, JobwireError);
  assert.equal(lost.code, "DATA_LOSS");
  assert.equal(lost.message, "gone (from there:5)");
  assert.equal(errorFromCall(failure(99 as status, ""), "there:5").code, "UNKNOWN");
  const ended = errorFromCall(failure(status.CANCELLED, "Cancelled on server side"), "there:5");
  assert.ok(ended instanceof Unavailable);
  assert.equal(ended.code, "CANCELLED");
  assert.match(ended.message, /was ended \(Cancelled on server side\); it may have taken effect/);
  const metadata = new Metadata();
  metadata.set("grpc-status-details-bin", Buffer.from([0xff, 0xff, 0xff]));
  assert.equal(errorFromCall(failure(status.NOT_FOUND, "no", metadata), "there:5").reason, "");
});

function secure(): ServerCredentials {
  return ServerCredentials.createSsl(null, [{ private_key: pem("key.pem"), cert_chain: pem("cert.pem") }]);
}
