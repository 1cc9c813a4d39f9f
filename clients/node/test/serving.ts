// What the tests of publishing share: the real server, and a relay before it that counts calls, holds them up and loses answers.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import type { TestContext } from "node:test";
import {
  type ClientUnaryCall,
  credentials,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServiceError,
  type sendUnaryData,
} from "@grpc/grpc-js";
import { Client, type ClientOptions } from "jobwire";
import {
  AdminServiceClient,
  AdminServiceService,
  type GetJobRequest,
  type GetJobResponse,
  type PublishRequest,
  type PublishResponse,
  QueueServiceClient,
  QueueServiceService,
} from "jobwire/v1";

/** The address of the server under test. */
export const SERVER = process.env.JOBWIRE_SERVER ?? "";
assert.notEqual(SERVER, "", "JOBWIRE_SERVER must name a running server, such as 127.0.0.1:50051");

/** A queue that no other test has. */
export function freshQueue(): string {
  return `node-${randomUUID()}`;
}

/** A client that is closed after the test. */
export function connected(t: TestContext, target = SERVER, options: ClientOptions = {}): Client {
  const client = new Client(target, { timeout: 30, ...options });
  t.after(() => client.close());
  return client;
}

interface UnaryMethod {
  path: string;
  requestSerialize: (request: unknown) => Buffer;
  responseDeserialize: (bytes: Buffer) => unknown;
}

/** Stands before the real server, and hands every call on. */
export class Relay {
  /** The address to call. */
  target = "";
  /** Publish calls that arrived here, in their order. */
  readonly publishes: PublishRequest[] = [];
  /** Calls of AdminService that arrived here, by name, in their order. */
  readonly adminCalls: string[] = [];
  /** What each call brought along: its token, and for whom it is made. */
  readonly tokens: unknown[] = [];
  readonly actors: unknown[] = [];
  /** Run before a Publish call is handed on; what it throws is the answer. */
  before: (request: PublishRequest) => Promise<void> | void = () => {};
  /** Run when the server has answered a Publish call; what it throws is the answer. */
  after: (request: PublishRequest) => Promise<void> | void = () => {};
  /** Run before a GetJob call is handed on; what it throws is the answer. */
  beforeGet: (request: GetJobRequest) => Promise<void> | void = () => {};
  /** Run before a call of AdminService is handed on; what it throws is the answer. */
  beforeAdmin: () => Promise<void> | void = () => {};
  /** Run when the server has answered a call of AdminService; what it throws is the answer. */
  afterAdmin: () => Promise<void> | void = () => {};
  readonly #handedOn = new Set<ClientUnaryCall>();
  readonly #server = new Server({ "grpc.max_receive_message_length": -1 });
  readonly #client = new QueueServiceClient(SERVER, credentials.createInsecure());
  readonly #admin = new AdminServiceClient(SERVER, credentials.createInsecure());

  async start(security = ServerCredentials.createInsecure()): Promise<void> {
    this.#server.addService(QueueServiceService, {
      publish: this.#handler<PublishRequest, PublishResponse>(async (request) => {
        this.publishes.push(request);
        await this.before(request);
        const response = await this.#ask<PublishResponse>((answer) => this.#client.publish(request, answer));
        await this.after(request);
        return response;
      }),
      getJob: this.#handler<GetJobRequest, GetJobResponse>(async (request) => {
        await this.beforeGet(request);
        return this.#ask<GetJobResponse>((answer) => this.#client.getJob(request, answer));
      }),
    });
    const admin = Object.entries(AdminServiceService).map(([name, method]) => [
      name,
      this.#handler(async (request) => {
        this.adminCalls.push(name);
        await this.beforeAdmin();
        const { path, requestSerialize, responseDeserialize } = method as UnaryMethod;
        const response = await this.#ask((answer) =>
          this.#admin.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, answer as never),
        );
        await this.afterAdmin();
        return response;
      }),
    ]);
    this.#server.addService(AdminServiceService, Object.fromEntries(admin));
    const port = await new Promise<number>((resolve, reject) =>
      this.#server.bindAsync("127.0.0.1:0", security, (error, port) => (error ? reject(error) : resolve(port))),
    );
    this.target = `localhost:${port}`;
  }

  stop(): void {
    this.#server.forceShutdown();
    // Closing a client of grpc-js waits for the answers to its calls.
    for (const call of this.#handedOn) call.cancel();
    this.#client.close();
    this.#admin.close();
  }

  #ask<Response>(
    make: (answer: (error: ServiceError | null, response: Response) => void) => ClientUnaryCall,
  ): Promise<Response> {
    return new Promise((resolve, reject) => {
      const call = make((error, response) => {
        this.#handedOn.delete(call);
        if (error) reject(error);
        else resolve(response);
      });
      this.#handedOn.add(call);
    });
  }

  #handler<Request, Response>(handle: (request: Request) => Promise<Response>) {
    return (call: ServerUnaryCall<Request, Response>, answer: sendUnaryData<Response>) => {
      this.tokens.push(call.metadata.get("authorization")[0]);
      this.actors.push(call.metadata.get("x-jobwire-actor")[0]);
      handle(call.request).then(
        (response) => answer(null, response),
        ({ code, details, metadata }) => answer({ code, details, metadata }),
      );
    };
  }
}

/** A relay that is stopped after the test. */
export async function relayed(t: TestContext, security?: ServerCredentials): Promise<Relay> {
  const relay = new Relay();
  await relay.start(security);
  t.after(() => relay.stop());
  return relay;
}

/** A door that is shut until it is opened. */
export function door(): { open: () => void; passed: Promise<void> } {
  let open = () => {};
  const passed = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, passed };
}
