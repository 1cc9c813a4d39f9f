// One life of a worker: its sessions from the start to an orderly end.

import type { Connection } from "./connection.js";
import type { SubscribeRequest } from "./generated/jobwire/v1/queue_service.js";
import type { Logger } from "./logging.js";
import { now } from "./retrying.js";
import type { Runner } from "./running.js";
import { Session } from "./session.js";
import { type QueueShare, shareMessages } from "./shares.js";
import { Flag, firstOf } from "./waiting.js";

/** How often it is looked whether the event loop still turns, in seconds. */
const TURN_INTERVAL = 0.5;

/** What a worker does for one queue, or for several that share its places. */
export interface Post {
  shares: readonly QueueShare[];
  concurrency: number;
  runner: Runner;
}

/** What the sessions of a worker have in common. */
export interface LifeTerms {
  connection: Connection;
  /** The worker's name and the terms that every Subscribe asks for. */
  request: SubscribeRequest;
  posts: readonly Post[];
  /** How long handlers may take to finish at a stop, in seconds. */
  stopGrace: number;
  /** As asked for, in seconds. */
  heartbeatInterval: number;
  logger: Logger;
}

/** Works from the moment it is made until it is told to stop. */
export class Lifetime {
  /** Done when all is put away; rejects with the error for which a session could not go on. To be minded by who made this. */
  readonly done: Promise<void>;
  readonly #terms: LifeTerms;
  readonly #sessions: readonly Session[];
  readonly #stopAsked = new Flag();
  readonly #hurry = new Flag();
  readonly #leaveAsked = new Flag();

  constructor(terms: LifeTerms) {
    this.#terms = terms;
    const { connection, request, logger } = terms;
    this.#sessions = terms.posts.map(
      ({ shares, concurrency, runner }) =>
        new Session({
          connection,
          request: { ...request, queues: shares.map(({ queue }) => queue), shares: shareMessages(shares) },
          concurrency,
          runner,
          logger,
          onQuiet: () => this.#leaveAsked.raise(),
        }),
    );
    this.done = this.#live();
  }

  /** Asks for the end; `now`: without the grace. */
  stop(now: boolean): void {
    this.#stopAsked.raise();
    if (now) this.#hurry.raise();
  }

  /** Whether the end has begun. */
  get stopping(): boolean {
    return this.#stopAsked.up;
  }

  async #live(): Promise<void> {
    const turning = this.#watchLoop();
    const runs = this.#sessions.map((session) => session.run());
    const left = this.#leave();
    const asked = firstOf(undefined, this.#stopAsked);
    try {
      // If a session cannot go on, the worker does not go on as half a worker: its error comes out here, after an orderly end
      // of the others.
      await Promise.race([asked, left, ...runs]);
    } finally {
      this.#stopAsked.raise();
      await Promise.all(this.#sessions.map((session) => session.stop(this.#terms.stopGrace, this.#hurry)));
      for (const session of this.#sessions) session.end();
      await Promise.allSettled([left, ...runs]);
      await Promise.all(this.#terms.posts.map(({ runner }) => runner.close()));
      this.#terms.connection.close();
      clearInterval(turning);
    }
  }

  /** If the server asks for it, takes no more jobs, and finishes those in hand, however long that takes. */
  async #leave(): Promise<void> {
    await firstOf(undefined, this.#leaveAsked, this.#stopAsked);
    if (this.#stopAsked.up) return;
    this.#terms.logger.info("the worker was asked to leave: finishing what runs");
    await Promise.all(this.#sessions.map((session) => session.finish()));
  }

  /**
   * Says so when heartbeats could not be answered because a handler held up the event loop. Its timer keeps the process alive
   * as long as the worker lives, also while it waits for something that by itself would not.
   */
  #watchLoop(): NodeJS.Timeout {
    const { heartbeatInterval, logger } = this.#terms;
    let last = now();
    return setInterval(() => {
      const late = now() - last - TURN_INTERVAL;
      last = now();
      if (late < heartbeatInterval) return;
      logger.warn(
        `the event loop stood still for ${late.toFixed(1)} s, longer than a heartbeat interval of ${heartbeatInterval} s: ` +
          "a handler computed without a pause, or the process was stopped. After three heartbeats without an answer the " +
          "server takes the worker for lost; compute in a worker thread or a process, or await something now and then",
      );
    }, TURN_INTERVAL * 1000);
  }
}
