// The channel to Jobwire: its options, and calls that are repeated where that helps.
//
// Who and for whom travels as metadata of each call, so that a token works without TLS too (behind a proxy that ends it).

import {
  type ChannelCredentials,
  type ChannelOptions,
  type ClientReadableStream,
  credentials,
  Client as GrpcClient,
  Metadata,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import {
  errorFromCall,
  FailedPrecondition,
  InvalidArgument,
  JobwireError,
  Unauthenticated,
  Unavailable,
  whyOf,
} from "./errors.js";
import { abortable, pause } from "./pausing.js";
import { Attempts } from "./retrying.js";
import { after } from "./waiting.js";

/** How to speak TLS: PEM texts, or their bytes. */
export interface Tls {
  /** The authorities that may vouch for the server; left out, those that Node knows. */
  ca?: string | Uint8Array | undefined;
  /** The client's own certificate, where the server asks for one. */
  cert?: string | Uint8Array | undefined;
  /** Its private key. */
  key?: string | Uint8Array | undefined;
}

/** A bearer token, or what returns the one to use; it is asked before each call. */
export type Token = string | (() => string | Promise<string>);

/** With whom a connection speaks, and as whom. */
export interface ConnectionOptions {
  /** True: TLS by the authorities that Node knows. Left out or false: no encryption. */
  tls?: boolean | Tls | undefined;
  token?: Token | undefined;
  /** For whom calls are made: the name in the record of what operators do. */
  actor?: string | undefined;
  /** A worker takes `pick_first`, so that its Acks share its stream's connection. */
  balancing?: "round_robin" | "pick_first" | undefined;
}

/** A unary call of the contract, such as `QueueServiceService.publish`. */
export interface UnaryMethod<Request, Response> {
  path: string;
  requestSerialize(request: Request): Buffer;
  responseDeserialize(bytes: Buffer): Response;
}

/** The options of a channel, with what each is for. */
export function channelOptions(balancing: "round_robin" | "pick_first"): ChannelOptions {
  return {
    // A connection that died without a word is noticed within 40 s, also while no call is under way.
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.keepalive_permit_without_calls": 1,
    // A restarted server is found within seconds; gRPC's own default grows to two minutes.
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.max_reconnect_backoff_ms": 3_000,
    // A name is looked up again when a connection ends, at most this often. With gRPC's own 30 s a client would know no
    // living replica at the end of a rolling update that is quicker than that.
    "grpc.dns_min_time_between_resolutions_ms": 1_000,
    // What is set here holds: no TXT record is asked for another configuration at each look-up.
    "grpc.service_config_disable_resolution": 1,
    "grpc.service_config": JSON.stringify({ loadBalancingConfig: [{ [balancing]: {} }] }),
    // Calls are repeated here, where ids make that safe and the caller's time bounds it.
    "grpc.enable_retries": 0,
    // A page of ListJobs is the largest answer; requests stay below 4 MiB by the contract.
    "grpc.max_receive_message_length": 64 * 1024 * 1024,
    "grpc.max_send_message_length": 4 * 1024 * 1024,
    // So much of a stream may be on its way unread: with HTTP/2's own 64 KiB a group of deliveries takes many round trips.
    "grpc-node.flow_control_window": 1024 * 1024,
    // Otherwise channels that are made alike share what they have connected, also what a worker has left as dead.
    "grpc.use_local_subchannel_pool": balancing === "pick_first" ? 1 : 0,
  };
}

/** In seconds. At a deadline that is much later grpc-js throws where nobody can catch it. */
const LONGEST_CALL = 7 * 24 * 3600;

/** What hands out tokens may be slow, in seconds, but holds nobody up for ever. */
const TOKEN_TIME = 10;

/**
 * One channel, until it is left for another one. The connection is made with the first call, and again whenever it breaks.
 */
export class Connection {
  readonly target: string;
  /** The number of the present channel. */
  line = 0;
  readonly #open: () => GrpcClient;
  #client: GrpcClient;
  readonly #token: Token | undefined;
  readonly #actor: string | undefined;
  /** What ends each call that is under way: grpc-js would wait for their answers. */
  readonly #underWay = new Set<(why: JobwireError) => void>();
  #why: string | undefined;
  #closed = false;

  constructor(target: string, { tls, token, actor, balancing = "round_robin" }: ConnectionOptions = {}) {
    this.target = checkedTarget(target);
    this.#token = token;
    this.#actor = actor;
    const speaking = credentialsFrom(tls);
    this.#open = () => new GrpcClient(target, speaking, channelOptions(balancing));
    this.#client = this.#open();
  }

  /**
   * Goes on over a new channel, since the one of this number may be dead without anybody having said so. What is under way over the
   * old one ends: calls as unavailable, streams by what was given for that. If it was left before, by somebody else who shares it,
   * nothing happens.
   */
  leave(line: number | undefined): void {
    if (line !== this.line || this.#closed) {
      return;
    }
    const left = this.#client;
    this.line += 1;
    this.#client = this.#open();
    this.#end(left, new Unavailable(`the connection to Jobwire at ${this.target} was left while a call was under way`));
  }

  /** Makes a call, repeated with growing pauses within `timeout` seconds; rejects with a JobwireError. */
  async call<Request, Response>(
    method: UnaryMethod<Request, Response>,
    request: Request,
    timeout: number,
    signal?: AbortSignal,
  ): Promise<Response> {
    const attempts = new Attempts(timeout);
    for (;;) {
      try {
        return await this.attempt(method, request, attempts.timeout(), signal);
      } catch (error) {
        if (!(error instanceof JobwireError)) {
          throw error;
        }
        await pause(attempts.pauseAfter(error), signal);
      }
    }
  }

  /** Makes a call once; rejects with a JobwireError, or with the reason of a signal that is aborted. */
  async attempt<Request, Response>(
    method: UnaryMethod<Request, Response>,
    request: Request,
    timeout: number,
    signal?: AbortSignal,
  ): Promise<Response> {
    const deadline = Date.now() + Math.min(timeout, LONGEST_CALL) * 1000;
    const metadata = await this.#metadata(timeout, signal);
    if (this.#closed) {
      throw closedError(this.target);
    }
    return abortable<Response>(signal, (resolve, reject) => {
      const call = this.#client.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        metadata,
        { deadline },
        (failure, response) => {
          this.#underWay.delete(end);
          if (failure) {
            reject(this.failed(failure));
          } else {
            resolve(response as Response);
          }
        },
      );
      const end = (why: JobwireError) => {
        reject(why);
        call.cancel();
      };
      this.#underWay.add(end);
      return () => call.cancel();
    });
  }

  /**
   * Makes a call that is answered by a stream; what goes wrong with that is for `failed`. `onLeft` is called when its channel is
   * left or closed, and is to cancel it.
   */
  async stream<Request, Response>(
    method: UnaryMethod<Request, Response>,
    request: Request,
    onLeft: () => void,
  ): Promise<ClientReadableStream<Response>> {
    const metadata = await this.#metadata();
    const { path, requestSerialize, responseDeserialize } = method;
    const call = this.#client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, request, metadata);
    this.#underWay.add(onLeft);
    call.once("status", () => this.#underWay.delete(onLeft));
    return call;
  }

  /** Turns the failure of a call over this connection into an error of ours. */
  failed(failure: ServiceError): JobwireError {
    // grpc-js forgets why it has no connection whenever it looks the name up again.
    if (failure.code === status.UNAVAILABLE && whyOf(failure.details) !== "") {
      this.#why = whyOf(failure.details);
    }
    return errorFromCall(failure, this.target, this.#why);
  }

  /** Closes the channel; calls that are under way reject. */
  close(): void {
    this.#closed = true;
    this.#end(this.#client, closedError(this.target));
  }

  #end(client: GrpcClient, why: JobwireError): void {
    for (const end of [...this.#underWay]) {
      this.#underWay.delete(end);
      end(why);
    }
    client.close();
  }

  async #metadata(timeout = TOKEN_TIME, signal?: AbortSignal): Promise<Metadata> {
    const metadata = new Metadata();
    if (this.#actor !== undefined) {
      metadata.set("x-jobwire-actor", ascii(this.#actor));
    }
    if (this.#token) {
      const asked = typeof this.#token === "function";
      setToken(metadata, asked ? await given(this.#token, Math.min(timeout, TOKEN_TIME), signal) : this.#token);
    }
    return metadata;
  }
}

/** The error of who calls, or waits for an answer, after the end. */
export function closedError(target: string): FailedPrecondition {
  return new FailedPrecondition(`the connection to Jobwire at ${target} was closed by this program: make a new one`, {
    reason: "CLOSED",
  });
}

/** What grpc-js would take for a strange name, and look up until the time is over. */
function checkedTarget(target: string): string {
  if (typeof target !== "string" || target === "" || /^https?:/i.test(target)) {
    throw new InvalidArgument(
      `target: host and port, such as 127.0.0.1:50051 or dns:///jobwire:50051, not ${JSON.stringify(target)}`,
    );
  }
  return target;
}

function credentialsFrom(tls: boolean | Tls | undefined): ChannelCredentials {
  if (!tls) {
    return credentials.createInsecure();
  }
  const { ca, cert, key } = tls === true ? ({} as Tls) : tls;
  try {
    return credentials.createSsl(pem(ca), pem(key), pem(cert));
  } catch (error) {
    throw new InvalidArgument(`tls: ${(error as Error).message}; ca, cert and key are PEM texts, not names of files`, {
      cause: error,
    });
  }
}

function pem(text: string | Uint8Array | undefined): Buffer | null {
  if (text === undefined) {
    return null;
  }
  const bytes = Buffer.from(text as string);
  // An authority that is none would be passed over in silence.
  if (!bytes.includes("-----BEGIN")) {
    throw new Error("no PEM text");
  }
  return bytes;
}

async function given(
  token: () => string | Promise<string>,
  timeout: number,
  signal: AbortSignal | undefined,
): Promise<string> {
  try {
    return await abortable<string>(signal, (resolve, reject) => {
      const late = () => reject(new Error(`it did not answer within ${timeout.toFixed(1)} s`));
      const timer = after(timeout, late);
      const asked = (async () => token())();
      asked.then(resolve, reject).finally(() => clearTimeout(timer));
      return () => clearTimeout(timer);
    });
  } catch (error) {
    signal?.throwIfAborted();
    // Repeated like a server that is away: what hands out tokens may be back soon.
    const why = error instanceof Error ? error.message : String(error);
    throw new Unavailable(`no token: the function that returns it failed (${why})`, { cause: error });
  }
}

// Unauthenticated, not InvalidArgument: it is nothing that a worker says of its jobs that is at fault.
function setToken(metadata: Metadata, token: string): void {
  if (typeof token !== "string" || token === "") {
    throw new Unauthenticated(
      `token: a text, or a function that returns one, not ${token === "" ? "none" : typeof token}`,
    );
  }
  try {
    metadata.set("authorization", `Bearer ${token}`);
  } catch {
    // gRPC's own words would repeat the token, and end in a log.
    throw new Unauthenticated("token: it holds what no HTTP header may, such as a line's end: trim it");
  }
}

/** Metadata is ASCII. */
function ascii(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, "?");
}
