// What can go wrong, as one hierarchy with fields.
//
// Every failed call rejects with a JobwireError whose message says what to do. The classes follow gRPC's status codes, with
// one of its own where a caller acts otherwise; `reason` is the finer word that the server gave, such as QUEUE_NOT_FOUND.

import { type ServiceError, status } from "@grpc/grpc-js";
import { BadRequest, ErrorInfo, RetryInfo, Status } from "./generated/details/status.js";
import { fromDuration } from "./wire.js";

/** The name of one of gRPC's status codes. */
export type Code = Exclude<keyof typeof status, "OK">;

/** A field of a request that breaks a rule. */
export interface FieldViolation {
  /** Its path, such as `jobs[3].data`. */
  field: string;
  /** The rule. */
  description: string;
}

/** What is known of an error beside its message. */
export interface ErrorTerms {
  code?: Code;
  reason?: string;
  fieldViolations?: readonly FieldViolation[];
  retryAfter?: number;
  cause?: unknown;
}

/** A call that failed; also thrown as such for status codes without a class of their own. */
export class JobwireError extends Error {
  /** The code of errors that are made without one. */
  static readonly defaultCode: Code = "UNKNOWN";

  /** gRPC's status code. */
  readonly code: Code;
  /** The server's finer word, empty if it gave none. */
  readonly reason: string;
  /** Which fields of the request break which rules. */
  readonly fieldViolations: readonly FieldViolation[];
  /** After how many seconds the server asks to repeat the call; undefined if it does not. */
  readonly retryAfter: number | undefined;

  constructor(message: string, terms: ErrorTerms = {}) {
    super(message, terms.cause === undefined ? undefined : { cause: terms.cause });
    this.name = new.target.name;
    this.code = terms.code ?? new.target.defaultCode;
    this.reason = terms.reason ?? "";
    this.fieldViolations = terms.fieldViolations ?? [];
    this.retryAfter = terms.retryAfter;
  }
}

/** A request that breaks a rule; correct the named field. Repeating it is of no use. */
export class InvalidArgument extends JobwireError {
  static override readonly defaultCode: Code = "INVALID_ARGUMENT";
}

/** A queue, job or session that does not exist (any more). */
export class NotFound extends JobwireError {
  static override readonly defaultCode: Code = "NOT_FOUND";
}

/** What was asked for cannot be done as things stand; `reason` says why, and the message what to do first. */
export class FailedPrecondition extends JobwireError {
  static override readonly defaultCode: Code = "FAILED_PRECONDITION";
}

/** A call that met another one; repeat it after `retryAfter`. */
export class Aborted extends JobwireError {
  static override readonly defaultCode: Code = "ABORTED";
}

/** A limit of the server or of a message's size was met. */
export class ResourceExhausted extends JobwireError {
  static override readonly defaultCode: Code = "RESOURCE_EXHAUSTED";
}

/** The server, or this client, is publishing as much as it can hold. Nothing of the call was stored; repeat it later. */
export class Overloaded extends ResourceExhausted {}

/** As many jobs wait in the queue as its `max_depth` allows. Nothing of the call was stored; repeat it later. */
export class QueueFull extends ResourceExhausted {}

/** The server cannot be reached, drains, has lost its database, or ended the call as it stopped. */
export class Unavailable extends JobwireError {
  static override readonly defaultCode: Code = "UNAVAILABLE";
}

/** No answer within the timeout. Whether the call took effect is not known; repeating it is safe. */
export class DeadlineExceeded extends JobwireError {
  static override readonly defaultCode: Code = "DEADLINE_EXCEEDED";
}

/** These credentials may not do that. */
export class PermissionDenied extends JobwireError {
  static override readonly defaultCode: Code = "PERMISSION_DENIED";
}

/** The server wants a token, or does not accept this one. */
export class Unauthenticated extends JobwireError {
  static override readonly defaultCode: Code = "UNAUTHENTICATED";
}

/** The server at this address does not know the call; perhaps it is older than this client. */
export class Unimplemented extends JobwireError {
  static override readonly defaultCode: Code = "UNIMPLEMENTED";
}

/** A fault of the server; report it with the request id in the message. */
export class InternalError extends JobwireError {
  static override readonly defaultCode: Code = "INTERNAL";
}

type ErrorClass = new (message: string, terms?: ErrorTerms) => JobwireError;

const CLASSES: Partial<Record<Code, ErrorClass>> = {
  INVALID_ARGUMENT: InvalidArgument,
  NOT_FOUND: NotFound,
  FAILED_PRECONDITION: FailedPrecondition,
  ABORTED: Aborted,
  RESOURCE_EXHAUSTED: ResourceExhausted,
  UNAVAILABLE: Unavailable,
  DEADLINE_EXCEEDED: DeadlineExceeded,
  PERMISSION_DENIED: PermissionDenied,
  UNAUTHENTICATED: Unauthenticated,
  UNIMPLEMENTED: Unimplemented,
  INTERNAL: InternalError,
  // Whoever cancels a call is told otherwise: this is how gRPC ends calls that reach a server as it stops.
  CANCELLED: Unavailable,
};

const REASONS: Partial<Record<string, ErrorClass>> = { OVERLOADED: Overloaded, QUEUE_FULL: QueueFull };

/**
 * Turns gRPC's error into ours; `target` is the address that was called, and `why` what is known of why it cannot be reached, should
 * the failure itself not say so.
 */
export function errorFromCall(failure: ServiceError, target: string, why = "no connection"): JobwireError {
  const code = (status[failure.code] ?? "UNKNOWN") as Code;
  const { reason, fieldViolations, retryAfter } = detailsOf(failure);
  const Kind = REASONS[reason] ?? CLASSES[code] ?? JobwireError;
  const message = messageOf(code, reason, failure.details ?? "", target, why);
  return new Kind(message, { code, reason, fieldViolations, retryAfter });
}

interface Details {
  reason: string;
  fieldViolations: FieldViolation[];
  retryAfter?: number;
}

function detailsOf(failure: ServiceError): Details {
  const found: Details = { reason: "", fieldViolations: [] };
  for (const packed of failure.metadata?.get("grpc-status-details-bin") ?? []) {
    try {
      readDetails(packed as Buffer, found);
    } catch {
      // Not what gRPC's servers send: something between us and the server wrote it. The status itself stands.
    }
  }
  return found;
}

function readDetails(packed: Buffer, found: Details): void {
  for (const { typeUrl, value } of Status.decode(packed).details) {
    switch (typeUrl.slice(typeUrl.lastIndexOf("/") + 1)) {
      case "google.rpc.ErrorInfo":
        found.reason = ErrorInfo.decode(value).reason;
        break;
      case "google.rpc.BadRequest":
        found.fieldViolations.push(...BadRequest.decode(value).fieldViolations);
        break;
      case "google.rpc.RetryInfo":
        found.retryAfter = fromDuration(RetryInfo.decode(value).retryDelay);
        break;
    }
  }
}

const SAFE = "and repeating it is safe";

/** Gives the error of a call that is made once other advice than that of the calls that may be repeated. */
export function madeOnce(error: unknown): unknown {
  if (error instanceof JobwireError) {
    error.message = error.message.replace(SAFE, "and listActions says whether");
  }
  return error;
}

/** The server's own words stand; what gRPC itself says is turned into what to do. */
function messageOf(code: Code, reason: string, text: string, target: string, why: string): string {
  if (reason !== "") {
    return text || reason;
  }
  switch (code) {
    case "UNAVAILABLE":
      return `cannot reach Jobwire at ${target} (${whyOf(text) || why}): is it running there, and are address and TLS right?`;
    case "DEADLINE_EXCEEDED":
      return `no answer from Jobwire at ${target} in time; the call may have taken effect, ${SAFE}`;
    case "CANCELLED":
      return `the call to Jobwire at ${target} was ended (${text || code}); it may have taken effect, ${SAFE}`;
    case "UNIMPLEMENTED":
      return `the server at ${target} does not know this call (${text}): is it Jobwire, and as new as this client?`;
    default:
      return `${text || code} (from ${target})`;
  }
}

/** The useful part of what grpc-js says of a connection that it does not have, the same each time for the same cause; or nothing. */
export function whyOf(text: string): string {
  const why = text
    .replace(/^.*Last error: /s, "")
    .replace(/\. Resolution note: .*$/s, "")
    .replace(/ \(\d{4}-\d\d-\d\dT[\d:.]+Z\)$/, "")
    .replace(/^Error: /, "")
    // OpenSSL: a number, places in its sources, and between them what is wrong.
    .replace(/^[0-9A-F]+:error:[0-9A-F]+:SSL routines:[^:]*:([^:]+):.*$/s, "TLS: $1")
    .replace(/^Failed to connect$/, "the connection was closed at once")
    // Only a proxy fails without a word.
    .replace(
      /^undefined$/,
      "the proxy that grpc_proxy, https_proxy or http_proxy names; no_proxy lists who needs none",
    );
  return why === "null" ? "" : why;
}
