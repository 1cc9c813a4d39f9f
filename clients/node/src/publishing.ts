// Publishing: single jobs that go out together, and batches split into calls.
//
// While a Publish call of a queue is on its way, what else is published to that queue gathers and goes out in the next
// call; when nothing is on its way, nothing waits. `grouping` says who goes with whom, and what becomes of whom.

import type { Connection } from "./connection.js";
import { publishedFrom, specFrom } from "./convert.js";
import { DeadlineExceeded, JobwireError, Overloaded } from "./errors.js";
import { fail, Grouping, PUBLISH, parcels, type Room, type Waiting } from "./grouping.js";
import type { NewJob, Published } from "./model.js";
import { abortable } from "./pausing.js";
import { ATTEMPT_TIMEOUT, Backoff, now } from "./retrying.js";
import { after, Flag, firstOf, nextTurn } from "./waiting.js";

/** So many bytes of jobs may wait to be sent. Beyond it publishing is refused at once: who publishes does not wait for answers. */
const MAX_WAITING_BYTES = 64 * 1024 * 1024;

/** After so many jobs of a batch other work of the process has its turn. */
const ENCODED_AT_ONCE = 1000;

/** Publishes over one connection; each queue has a lane of its own. `timeout` is for each job, in seconds. */
export class Publisher {
  readonly #connection: Connection;
  readonly #timeout: number;
  readonly #lanes = new Map<string, Lane>();
  readonly #room: Room = { used: 0 };

  constructor(connection: Connection, timeout: number) {
    this.#connection = connection;
    this.#timeout = timeout;
  }

  /** Stores one job, in one call with its neighbours. */
  async publish(queue: string, job: NewJob, signal: AbortSignal | undefined): Promise<Published> {
    const spec = specFrom(job);
    if (this.#room.used + spec.byteLength > MAX_WAITING_BYTES) {
      throw new Overloaded(
        `${MAX_WAITING_BYTES} bytes of jobs wait already to be sent to Jobwire at ${this.#connection.target}: await what publish returns before you publish more`,
        { reason: "OVERLOADED" },
      );
    }
    return abortable<Published>(signal, (stored, failed) => {
      const waiting = { spec, deadline: now() + this.#timeout, done: false, stored, failed };
      this.#lane(queue).add(waiting);
      return () => {
        waiting.done = true;
      };
    });
  }

  /** Stores many jobs, call by call in their order; the timeout is for each call. */
  async publishMany(
    queue: string,
    jobs: Iterable<NewJob>,
    onProgress: ((done: number, total: number) => void) | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Published[]> {
    const specs: Uint8Array[] = [];
    for (const job of jobs) {
      specs.push(specFrom(job));
      if (specs.length % ENCODED_AT_ONCE === 0) {
        await nextTurn();
      }
    }
    const published: Published[] = [];
    for (const parcel of parcels(queue, specs)) {
      const { results } = await this.#connection.call(PUBLISH, parcel, this.#timeout, signal);
      published.push(...results.map(publishedFrom));
      onProgress?.(published.length, specs.length);
    }
    return published;
  }

  /** Lets what is on its way arrive, or run out of its time. */
  async close(): Promise<void> {
    await Promise.all([...this.#lanes.values()].map((lane) => lane.idle()));
  }

  #lane(queue: string): Lane {
    let lane = this.#lanes.get(queue);
    if (lane === undefined) {
      lane = new Lane(this.#connection, queue, this.#timeout, this.#room, () => this.#lanes.delete(queue));
      this.#lanes.set(queue, lane);
    }
    return lane;
  }
}

/** The jobs of one queue that are on their way: one call at a time. It is gone when it runs empty. */
class Lane {
  readonly #connection: Connection;
  readonly #queue: string;
  readonly #timeout: number;
  readonly #grouping: Grouping;
  // In the order of their deadlines, since all have the same time: one timer stands for all of them.
  #unanswered: Waiting[] = [];
  #timer: NodeJS.Timeout | undefined;
  // Up when nobody waits for an answer any more.
  readonly #idle = new Flag();
  readonly #sender: Promise<void>;

  constructor(connection: Connection, queue: string, timeout: number, room: Room, gone: () => void) {
    this.#connection = connection;
    this.#queue = queue;
    this.#timeout = timeout;
    this.#grouping = new Grouping(room);
    this.#sender = this.#send(gone);
  }

  add(waiting: Waiting): void {
    this.#idle.lower();
    this.#grouping.add(waiting);
    this.#unanswered.push(waiting);
    this.#timer ??= after(this.#timeout, () => this.#timeIsUp());
  }

  idle(): Promise<void> {
    return this.#sender;
  }

  /** Answers those whose time is over; what they published may still be stored. */
  #timeIsUp(): void {
    const time = now();
    const first = this.#unanswered.findIndex(({ deadline, done }) => deadline > time && !done);
    const late = first < 0 ? this.#unanswered.splice(0) : this.#unanswered.splice(0, first);
    fail(late, this.#grouping.lastError ?? this.#noAnswer());
    const next = this.#unanswered[0];
    this.#timer = next && after(next.deadline - time, () => this.#timeIsUp());
    this.#idle.set(next === undefined);
  }

  #noAnswer(): DeadlineExceeded {
    return new DeadlineExceeded(
      `no answer from Jobwire at ${this.#connection.target} within ${this.#timeout} s; the job may be stored, and publishing it again with the same id is safe`,
    );
  }

  async #send(gone: () => void): Promise<void> {
    const backoff = new Backoff();
    // What is published in the same breath goes out together.
    await undefined;
    try {
      for (let group = this.#grouping.take(); group.length > 0; group = this.#grouping.take()) {
        const error = await this.#deliver(group);
        if (error === undefined) {
          backoff.reset();
          // Those who were just answered may have more to publish: it goes along with what waits already.
          await nextTurn();
        } else {
          await firstOf(backoff.pause(error.retryAfter), this.#idle);
        }
      }
    } catch (error) {
      // A fault of ours: nobody may wait for ever.
      fail(this.#unanswered, error);
      this.#grouping.take();
    } finally {
      clearTimeout(this.#timer);
      gone();
    }
  }

  /** Publishes a group. Returns the error if there is to be a pause before the next call. */
  async #deliver(group: readonly Waiting[]): Promise<JobwireError | undefined> {
    const remaining = Math.max(...group.map(({ deadline }) => deadline)) - now();
    const parcel = { queue: this.#queue, specs: group.map(({ spec }) => spec) };
    try {
      const timeout = Math.max(0.001, Math.min(ATTEMPT_TIMEOUT, remaining));
      this.#grouping.stored(group, await this.#connection.attempt(PUBLISH, parcel, timeout));
    } catch (error) {
      if (!(error instanceof JobwireError)) {
        throw error;
      }
      return this.#grouping.refused(group, error) ? error : undefined;
    } finally {
      const first = this.#unanswered.findIndex(({ done }) => !done);
      this.#unanswered.splice(0, first < 0 ? this.#unanswered.length : first);
    }
    return undefined;
  }
}
