// Between JavaScript values and what travels: JSON text, spans, points in time, ids.
//
// Spans are numbers of seconds everywhere, points in time are Dates.

import { randomFillSync } from "node:crypto";
import { BinaryWriter } from "@bufbuild/protobuf/wire";
import { V7Generator } from "uuidv7";
import type { Duration } from "./generated/google/protobuf/duration.js";

/** The largest payload or output that any queue can allow, in bytes. */
export const MAX_DATA_BYTES = 512 * 1024;

/** The largest checkpoint, in bytes. */
export const MAX_CHECKPOINT_BYTES = 64 * 1024;

/** What one Publish or Ack call may carry in all, less its own frame, in bytes. */
export const MAX_CALL_BYTES = 3 * 1024 * 1024 - 4096;

/** How many jobs or statements one Publish or Ack call may carry. */
export const MAX_CALL_ITEMS = 1000;

/** The longest span that protobuf's Duration takes: ten thousand years. */
const MAX_SPAN = 315_576_000_000;

/** Memory that has grown beyond so many bytes for one message is not kept for the next. */
const KEPT_BYTES = 64 * 1024;

/** A payload, an output or a checkpoint is larger than is ever allowed. */
export class TooLargeError extends Error {}

/** Random numbers are drawn many at a time: of a single draw most is the way to it and back. */
const random = new Uint32Array(1024);
let drawn = random.length;
const ids = new V7Generator({
  nextUint32() {
    if (drawn === random.length) {
      randomFillSync(random);
      drawn = 0;
    }
    return random[drawn++] as number;
  },
});

/** Returns a new UUID of version 7: unique anywhere, and sorted by time. */
export function newJobId(): string {
  return ids.generate().toString();
}

/**
 * Returns `value` as JSON text of at most `limit` bytes. As with JSON.stringify, NaN becomes null and undefined fields are left
 * out; `undefined` itself is `null`. Throws an Error, with advice, for what JSON or Jobwire cannot carry.
 */
export function toJson(value: unknown, limit: number = MAX_DATA_BYTES): string {
  if (value instanceof Promise) throw new Error("not JSON: a promise; await it first");
  let text: string | undefined;
  try {
    text = JSON.stringify(value === undefined ? null : value);
  } catch (error) {
    if (error instanceof RangeError) {
      throw new Error("not JSON: nested too deeply; at most 64 levels are taken", { cause: error });
    }
    const what = error instanceof Error ? error.message.split("\n", 1)[0] : String(error);
    throw new Error(`not JSON: ${what}; no BigInt, no value that contains itself`, { cause: error });
  }
  if (text === undefined) {
    const what = typeof value === "object" ? "an object whose toJSON returns nothing" : `a ${typeof value}`;
    throw new Error(`not JSON: ${what}; give an object, an array, a string, a number, a boolean or null`);
  }
  const size = Buffer.byteLength(text);
  if (size > limit) {
    throw new TooLargeError(
      `${size} bytes of JSON, but at most ${limit} are taken: store the content elsewhere (object storage, a table) and send its key`,
    );
  }
  return text;
}

/** Decodes JSON text; the empty text, which means that nothing was given, is null. */
export function fromJson(text: string): unknown {
  return text === "" ? null : JSON.parse(text);
}

/** Makes any string one that travels: well-formed Unicode without NUL, at most `limit` characters. */
export function cleanText(text: string, limit: number): string {
  let characters = 0;
  let end = 0;
  while (end < text.length && characters < limit) {
    // A pair of surrogates is one character.
    end += (text.codePointAt(end) ?? 0) > 0xffff ? 2 : 1;
    characters += 1;
  }
  // What is half a pair, the encoder writes as U+FFFD.
  return text.slice(0, end).replaceAll("\0", "\uFFFD");
}

/** What writes the next message, with the memory of the last one. */
let writer: BinaryWriter | undefined;

/** The bytes of a message. Small ones are written into the same memory: new memory for each is half of their cost. */
export function encode<Message>(
  type: { encode(message: Message, writer: BinaryWriter): BinaryWriter },
  message: Message,
): Uint8Array {
  const mine = writer ?? new BinaryWriter();
  writer = undefined; // what throws half way leaves nothing behind
  const bytes = type.encode(message, mine).finish();
  if (bytes.byteLength <= KEPT_BYTES) writer = mine;
  return bytes;
}

/** Turns seconds into a protobuf Duration; throws an Error for what is no finite span. */
export function toDuration(span: number): Duration {
  if (typeof span !== "number" || !(Math.abs(span) <= MAX_SPAN)) {
    throw new Error(`${String(span)} is no span of time: give a number of seconds`);
  }
  // To the microsecond: what is finer is the noise of a binary fraction.
  const micros = Math.round((span % 1) * 1e6);
  const seconds = Math.trunc(span) + Math.trunc(micros / 1e6);
  return { seconds, nanos: (micros % 1_000_000) * 1000 };
}

/** Returns a protobuf Duration as seconds; what is absent is no time at all. */
export function fromDuration(duration: Duration | undefined): number {
  return duration === undefined ? 0 : duration.seconds + duration.nanos / 1e9;
}

/** Checks that a Date is one; throws an Error for `new Date("nonsense")` and for what is no Date. */
export function checkedDate(moment: Date): Date {
  if (!(moment instanceof Date) || Number.isNaN(moment.getTime())) {
    throw new Error(`${String(moment)} is no point in time: give a Date`);
  }
  return moment;
}
