// What a handler takes of each of its queues, when it has several or does not want all of one.

import { inspect } from "node:util";
import type { QueueShare as ShareMessage } from "./generated/jobwire/v1/session.js";

/** One queue's share in a handler's places. */
export interface QueueShare {
  /** The queue. */
  queue: string;
  /**
   * While several of the handler's queues have jobs waiting, they are run in proportion to the weights, 1 to 100, default 1. A
   * queue that has nothing holds up no other, and one of weight 1 has its turn beside any other.
   */
  weight?: number | undefined;
  /** How many of the places its jobs may take, 1 to 1000. Default: all. */
  maxInFlight?: number | undefined;
  /** Only jobs of this priority or a higher one. Default: any. */
  minPriority?: number | undefined;
  /** Only jobs of this priority or a lower one. Default: any. */
  maxPriority?: number | undefined;
}

/** One queue or several, each by its name or with its share. */
export type Queues = string | QueueShare | readonly (string | QueueShare)[];

/** The shares of queues, the whole of those of which only the name is given. Throws an Error for what is no share. */
export function sharesOf(queues: Queues): QueueShare[] {
  const several: readonly (string | QueueShare)[] = Array.isArray(queues) ? queues : [queues as string | QueueShare];
  return several.map((queue) => checked(typeof queue === "string" ? { queue } : queue));
}

/** In JavaScript a name that is missing would be the queue `undefined`, and half a number could not be sent. */
function checked(share: QueueShare): QueueShare {
  if (typeof share?.queue !== "string") {
    throw new TypeError(`a handler's queue is given by its name, or as { queue, … }, not as ${inspect(share)}`);
  }
  const { queue, weight, maxInFlight, minPriority, maxPriority } = share;
  for (const [what, number] of Object.entries({ weight, maxInFlight, minPriority, maxPriority })) {
    if (number !== undefined && !Number.isInteger(number)) {
      throw new RangeError(`${what} ${number} of queue '${queue}' must be a whole number`);
    }
  }
  return share;
}

/** Shares as they travel; the rules are the server's. Nothing need be said of queues that are taken whole. */
export function shareMessages(shares: readonly QueueShare[]): ShareMessage[] {
  const whole = (share: QueueShare) =>
    (share.weight ?? 1) === 1 &&
    share.maxInFlight === undefined &&
    share.minPriority === undefined &&
    share.maxPriority === undefined;
  if (shares.every(whole)) return [];
  return shares.map(({ queue, weight = 1, maxInFlight, minPriority, maxPriority }) => ({
    queue,
    weight,
    maxInFlight,
    minPriority,
    maxPriority,
  }));
}
