// Which jobs of one queue go out together, and what each of them is answered. No I/O, no clock.
//
// While a call is on its way, what else is published gathers for the next one. Fate is not shared: a group that is refused
// is taken apart until the bad job stands alone. Ids are made before the first attempt, so every group may be repeated.

import { publishedFrom } from "./convert.js";
import { DeadlineExceeded, InvalidArgument, type JobwireError, QueueFull, ResourceExhausted } from "./errors.js";
import { PublishRequest, type PublishResponse, QueueServiceService } from "./generated/jobwire/v1/queue_service.js";
import type { Published } from "./model.js";
import { worthRepeating } from "./retrying.js";
import { encode, MAX_CALL_BYTES, MAX_CALL_ITEMS } from "./wire.js";

/** A Publish call whose jobs are encoded already: their size decides who goes with whom, and nothing is encoded twice. */
export interface Parcel {
  queue: string;
  specs: readonly Uint8Array[];
}

/** The Publish call of a parcel. */
export const PUBLISH = { ...QueueServiceService.publish, requestSerialize: encoded };

function encoded({ queue, specs }: Parcel): Buffer {
  return Buffer.concat([encode(PublishRequest, { queue, jobs: [] }), ...specs]);
}

/** The calls that publish many jobs, each as full as it may be. */
export function parcels(queue: string, specs: Iterable<Uint8Array>): Parcel[] {
  const calls: Uint8Array[][] = [];
  let call: Uint8Array[] = [];
  let size = 0;
  for (const spec of specs) {
    size += spec.byteLength;
    if (call.length === 0 || call.length === MAX_CALL_ITEMS || size > MAX_CALL_BYTES) {
      call = [];
      calls.push(call);
      size = spec.byteLength;
    }
    call.push(spec);
  }
  return calls.map((specs) => ({ queue, specs }));
}

/** A published job that has no answer yet. */
export interface Waiting {
  spec: Uint8Array;
  /** On the monotonic clock, in seconds. */
  deadline: number;
  /** Whether it was answered, or nobody waits for it any more. */
  done: boolean;
  stored(published: Published): void;
  failed(error: unknown): void;
}

/** How many bytes of jobs wait to be sent, over all queues of a client. */
export interface Room {
  used: number;
}

/** The jobs of one queue that wait to be sent, and what to make of the answers. */
export class Grouping {
  /** What the last call failed with, if that says more than that somebody's time is up. */
  lastError: JobwireError | undefined;
  readonly #room: Room;
  #waiting: Waiting[] = [];
  // After a refused group: how many of its members are not cleared yet, and how many go out at once until then.
  #suspects = 0;
  #most = MAX_CALL_ITEMS;

  constructor(room: Room) {
    this.#room = room;
  }

  /** Puts a job behind the others. */
  add(waiting: Waiting): void {
    this.#waiting.push(waiting);
    this.#room.used += waiting.spec.byteLength;
  }

  /** Takes what goes into the next call, without those that nobody waits for any more. */
  take(): Waiting[] {
    const group: Waiting[] = [];
    let size = 0;
    let taken = 0;
    for (const waiting of this.#waiting) {
      if (group.length === this.#most) {
        break;
      }
      if (!waiting.done) {
        size += waiting.spec.byteLength;
        if (group.length > 0 && size > MAX_CALL_BYTES) {
          break;
        }
        group.push(waiting);
      }
      this.#room.used -= waiting.spec.byteLength;
      taken += 1;
    }
    this.#waiting.splice(0, taken);
    return group;
  }

  /** The call of a group succeeded: answers its members. */
  stored(group: readonly Waiting[], response: PublishResponse): void {
    group.forEach((waiting, index) => {
      const result = response.results[index];
      if (result !== undefined && !waiting.done) {
        waiting.done = true;
        waiting.stored(publishedFrom(result));
      }
    });
    this.#cleared(group);
  }

  /** The call of a group failed: answers its members, or puts them back. Returns whether to pause first. */
  refused(group: readonly Waiting[], error: JobwireError): boolean {
    if (worthRepeating(error)) {
      this.#putBack(group);
      if (!(error instanceof DeadlineExceeded)) {
        this.lastError = error;
      }
      if (error instanceof QueueFull) {
        // There may be room for fewer.
        this.#most = Math.max(1, Math.floor(group.length / 2));
      }
      return true;
    }
    if ((error instanceof InvalidArgument || error instanceof ResourceExhausted) && group.length > 1) {
      // One of them is bad. Smaller groups follow until it stands alone, and order is kept.
      this.#putBack(group);
      this.#suspects = group.length;
      this.#most = Math.floor(group.length / 2);
      return false;
    }
    fail(group, error);
    this.#suspects = 0;
    this.#cleared(group);
    return false;
  }

  #putBack(group: readonly Waiting[]): void {
    this.#waiting = [...group, ...this.#waiting];
    for (const { spec } of group) {
      this.#room.used += spec.byteLength;
    }
  }

  #cleared(group: readonly Waiting[]): void {
    this.lastError = undefined;
    this.#suspects = Math.max(0, this.#suspects - group.length);
    if (this.#suspects === 0) {
      this.#most = MAX_CALL_ITEMS;
    }
  }
}

/** Answers with an error all that still wait. */
export function fail(those: Iterable<Waiting>, error: unknown): void {
  for (const waiting of those) {
    if (!waiting.done) {
      waiting.done = true;
      waiting.failed(error);
    }
  }
}
