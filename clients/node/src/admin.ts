// What an operator does: every call of AdminService over the client's connection, with its token, its actor and its errors.
//
// The contract says which calls are safe to repeat (`idempotency_level`). These are repeated like a publish; any other is made
// once, and who made it decides what an answer that did not come means. AdminService has no streams.

import type { Connection, UnaryMethod } from "./connection.js";
import { InvalidArgument, madeOnce } from "./errors.js";
import { AdminServiceDefinition, AdminServiceService } from "./generated/jobwire/v1/admin_service.js";

/** How long to wait for one call, and when to stop waiting. */
export interface AdminCallOptions {
  /** In seconds, repetitions and pauses included. Default: the client's; for a call that is made once, at least 15. */
  timeout?: number | undefined;
  /** Aborting it rejects the call; what is on its way is not taken back. */
  signal?: AbortSignal | undefined;
}

type Methods = AdminServiceDefinition["methods"];

/**
 * The calls of AdminService by name, such as `cancelJobs({ queue, jobIds })`. Requests are the contract's messages, of which what
 * is not said is left out: points in time are Dates, spans are `{ seconds }`, a choice is `{ $case, value }`, payloads are JSON
 * text; enums are exported by `jobwire/v1`. Each call rejects with a JobwireError, InvalidArgument for a word that no request has.
 */
export type Admin = {
  readonly [Name in keyof Methods]: (
    request?: Parameters<Methods[Name]["requestType"]["fromPartial"]>[0],
    options?: AdminCallOptions,
  ) => Promise<ReturnType<Methods[Name]["responseType"]["fromPartial"]>>;
};

/** For a call that is made once and may work for a while before it answers: no less than this, in seconds. */
const WORK_SECONDS = 15;

const SHAPES =
  "a span is { seconds }, a choice { $case, value }, a point in time a Date, an enum a number of `jobwire/v1`";

/** The calls over a connection; `check` throws when there are to be no more. */
export function adminOver(connection: Connection, timeout: number, check: () => void): Admin {
  const call = async (name: keyof Methods, request: object = {}, { timeout: own, signal }: AdminCallOptions = {}) => {
    check();
    if (own !== undefined && !(Number.isFinite(own) && own > 0)) {
      throw new InvalidArgument(`timeout: a number of seconds above 0, not ${String(own)}`);
    }
    const { path, responseDeserialize } = AdminServiceService[name] as UnaryMethod<unknown, unknown>;
    const method = { path, requestSerialize: (bytes: Buffer) => bytes, responseDeserialize };
    const message = encoded(name, request);
    if (repeatable(name)) {
      return connection.call(method, message, own ?? timeout, signal);
    }
    try {
      return await connection.attempt(method, message, own ?? Math.max(timeout, WORK_SECONDS), signal);
    } catch (error) {
      throw madeOnce(error);
    }
  };
  const names = Object.keys(AdminServiceDefinition.methods) as (keyof Methods)[];
  return Object.fromEntries(names.map((name) => [name, call.bind(undefined, name)])) as unknown as Admin;
}

function repeatable(name: keyof Methods): boolean {
  return "idempotencyLevel" in AdminServiceDefinition.methods[name].options;
}

/** A request as it travels; throws InvalidArgument for what cannot. */
function encoded(name: keyof Methods, request: object): Buffer {
  const { requestType } = AdminServiceDefinition.methods[name];
  try {
    const message = requestType.fromPartial(request);
    const lost = lostIn(message, request);
    if (lost !== undefined) {
      throw new Error(`no request has ${lost || "that"}, or not so`);
    }
    return Buffer.from(requestType.encode(message as never).finish());
  } catch (error) {
    const why = `${name}: ${(error as Error).message}; ${SHAPES}`;
    throw new InvalidArgument(why, { reason: "INVALID_ARGUMENT", cause: error });
  }
}

/** The path of something given that no field of the message took: it would be lost in silence. */
function lostIn(message: unknown, given: unknown, path = ""): string | undefined {
  if (given === undefined || given === null) {
    return undefined;
  }
  if (typeof given !== "object" || given instanceof Date) {
    return Object.is(message, given) ? undefined : path;
  }
  if (typeof message !== "object" || message === null) {
    return path;
  }
  for (const [name, value] of Object.entries(given)) {
    const inner = path === "" ? name : `${path}.${name}`;
    const lost = name in message ? lostIn(message[name as keyof typeof message], value, inner) : inner;
    if (lost !== undefined) {
      return lost;
    }
  }
  return undefined;
}
