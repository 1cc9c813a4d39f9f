// The session of one handler: its streams one after the other, and what the server says on them.
//
// The state machine is that of docs/protocol.md, "the life of a worker". Opening and Resuming are one loop here: a session that
// has an id is resumed under a higher epoch, one that has none is opened.

import { Acker, stopReason } from "./acking.js";
import type { Connection } from "./connection.js";
import { Crew } from "./crew.js";
import { InvalidArgument, type JobwireError, PermissionDenied, Unauthenticated, Unimplemented } from "./errors.js";
import type {
  Delivery,
  Draining,
  SessionOpened,
  SubscribeRequest,
  SubscribeResponse,
} from "./generated/jobwire/v1/queue_service.js";
import type { Logger } from "./logging.js";
import { RELEASED } from "./outcome.js";
import { Backoff, now } from "./retrying.js";
import type { Runner } from "./running.js";
import { Standing } from "./standing.js";
import { EventStream } from "./stream.js";
import { Flag, firstOf } from "./waiting.js";
import { fromDuration, MAX_CALL_ITEMS } from "./wire.js";

/** How long handlers may take to end after they were told to because the worker stops, in seconds. */
const TIME_TO_END = 2;

/** How long after the grace the worker may take in all, for the ends of handlers and the last Acks, in seconds. */
const TIME_TO_LEAVE = 4;

/**
 * A timer that goes off so many seconds late says that this process did not run meanwhile, and not that the server was silent.
 */
const LATE = 0.25;

const OVER = new Set(["SESSION_LOST", "SESSION_TAKEN_OVER"]);

/** What a session is made of. */
export interface SessionTerms {
  /** Shared by all sessions of the worker. */
  connection: Connection;
  /** Names queues, worker and the terms asked for; the template of every Subscribe. */
  request: SubscribeRequest;
  /** How many jobs may run at once. */
  concurrency: number;
  /** Runs the handler. */
  runner: Runner;
  logger: Logger;
  /** Called when the server asks the worker to leave. */
  onQuiet(): void;
}

/** Takes jobs of a handler's queues and has them run, until it is told to stop. */
export class Session {
  readonly #connection: Connection;
  readonly #request: SubscribeRequest;
  readonly #queue: string;
  readonly #logger: Logger;
  readonly #onQuiet: () => void;
  readonly #standing = new Standing();
  readonly #acker: Acker;
  readonly #crew: Crew;
  readonly #backoff = new Backoff();
  readonly #over = new Flag();
  /** Down while a Subscribe waits for its first event. */
  readonly #answered = new Flag(true);
  #stream: EventStream | undefined;
  #quiet = false;
  #everOpened = false;
  #trouble = "";

  constructor({ connection, request, concurrency, runner, logger, onQuiet }: SessionTerms) {
    this.#connection = connection;
    this.#request = request;
    this.#queue = request.queues.join(", ");
    this.#logger = logger;
    this.#onQuiet = onQuiet;
    const hooks = {
      creditsWanted: () => this.#creditsWanted(),
      onStop: (handle: string, reason: Parameters<Crew["stop"]>[1]) => this.#crew.stop(handle, reason),
      onLost: (session: string) => this.#lostByAck(session),
    };
    this.#acker = new Acker(connection, this.#standing, hooks, logger);
    this.#crew = new Crew(concurrency, runner, this.#acker, logger);
  }

  /** Works until `end`. Rejects with a JobwireError if the server refuses the queue, the terms or the credentials. */
  async run(): Promise<void> {
    const parts = [this.#acker.run(), this.#watch(), this.#keepOpen()];
    try {
      await Promise.race(parts);
    } finally {
      this.end();
      await Promise.allSettled(parts);
      // Nothing is left after an orderly stop.
      this.#crew.dropAll();
    }
  }

  /** Ends `run` at once. */
  end(): void {
    this.#over.raise();
    this.#stream?.cancel();
    this.#acker.end();
  }

  /**
   * Takes no more jobs, finishes or gives back those in hand, reports their ends, and leaves; to be followed by `end`.
   *
   * @param grace how long handlers may take to finish, in seconds.
   * @param hurry ends the grace early.
   */
  async stop(grace: number, hurry: Flag): Promise<void> {
    const deadline = now() + grace;
    const { idle } = this.#crew;
    const { allAnswered } = this.#acker;
    this.#goQuiet();
    // A session that is just being opened could not be closed otherwise, and would keep its first jobs for a grace.
    await firstOf(1, this.#answered, hurry);
    await firstOf(grace, idle, hurry);
    this.#crew.stopAll("stopping");
    const end = TIME_TO_LEAVE + (hurry.up ? now() : deadline);
    await firstOf(TIME_TO_END, idle);
    this.#crew.abandon();
    await firstOf(end - now() - 2, allAnswered, hurry);
    await firstOf(1, allAnswered);
    if (!allAnswered.up) {
      const count = this.#acker.unanswered;
      this.#logger.warn(`queue ${this.#queue}: no server took the ends of ${count} jobs in time; these may run again`);
    }
    await this.#acker.closeSession(Math.max(1, end - now()));
  }

  /** Takes no more jobs, and waits until those in hand have ended; to be followed by `stop`. */
  async finish(): Promise<void> {
    this.#goQuiet();
    await firstOf(undefined, this.#crew.idle, this.#over);
  }

  #goQuiet(): void {
    this.#quiet = true;
    this.#acker.lookAgain();
  }

  async #keepOpen(): Promise<void> {
    // Without a stream when quiet and nothing is held: there is nothing to come back for, and what is still unanswered the
    // Acker sends without one.
    while (!this.#over.up && !(this.#quiet && this.#standing.held.size === 0)) {
      if (!this.#standing.id) await firstOf(undefined, this.#crew.hasPlace, this.#over);
      if (this.#over.up) break;
      await firstOf(await this.#oneStream(), this.#over);
    }
    await firstOf(undefined, this.#over);
  }

  /** Subscribes, and follows the stream to its end. Returns the pause before the next one, in seconds. */
  async #oneStream(): Promise<number> {
    const resuming = this.#standing.id !== "";
    let pause: number | undefined;
    const stream = new EventStream(this.#connection, this.#nextRequest(), (event) => {
      this.#standing.event(event.sequence);
      if (event.event?.$case === "draining") {
        pause = this.#drained(event.event.value);
        stream.cancel();
      } else {
        this.#take(event);
      }
    });
    this.#stream = stream;
    try {
      const end = await stream.over;
      if (end === "ended" && !this.#quiet) {
        this.#logger.info(`queue ${this.#queue}: the server ended the stream; resuming`);
      }
      return pause ?? (end instanceof Error ? this.#refused(end, resuming) : this.#backoff.pause());
    } finally {
      stream.cancel();
      this.#stream = undefined;
      this.#answered.raise();
    }
  }

  #take({ event }: SubscribeResponse): void {
    switch (event?.$case) {
      case "opened":
        this.#opened(event.value);
        break;
      case "deliveries":
        this.#backoff.reset();
        for (const delivery of event.value.deliveries) this.#delivered(delivery);
        break;
      case "cancellation":
        this.#crew.stop(event.value.handle, stopReason(event.value.reason));
        break;
      case "heartbeat":
        this.#backoff.reset();
        void this.#acker.beat();
        break;
      case "quiet":
        this.#onQuiet();
        break;
      default: // a sign of life; newer servers may say more
    }
  }

  #nextRequest(): SubscribeRequest {
    this.#answered.lower();
    const standing = this.#standing;
    // One credit at least may be named here; an Ack corrects that as soon as the stream is open.
    const maxInFlight = Math.max(1, this.#creditsWanted());
    standing.subscribing(maxInFlight);
    const request = { ...this.#request, maxInFlight };
    if (!standing.id) return request;
    // Beyond what one call may name, what still runs counts for more than what only waits for an answer.
    const handles = [...standing.held.keys()];
    const running = handles.filter((handle) => this.#crew.runs(handle));
    const waiting = handles.filter((handle) => !this.#crew.runs(handle));
    const held = [...running, ...waiting].slice(0, MAX_CALL_ITEMS);
    return { ...request, resume: { sessionId: standing.id, epoch: standing.epoch, held } };
  }

  #opened(opened: SessionOpened): void {
    const { sessionId, epoch, resumed, lost, serverVersion } = opened;
    if (this.#standing.id && this.#standing.id !== sessionId) this.#lost("the server opened another one");
    this.#standing.opened(opened);
    this.#everOpened = true;
    this.#trouble = "";
    this.#answered.raise();
    // Older servers do not tell their version.
    const server = serverVersion ? `, server ${serverVersion}` : "";
    const how = resumed ? `resumed session ${sessionId}, epoch ${epoch}` : `opened session ${sessionId}`;
    this.#logger.info(`queue ${this.#queue}: ${how}${server}`);
    for (const handle of lost) {
      const jobId = this.#standing.held.get(handle);
      if (jobId === undefined) continue;
      this.#standing.held.delete(handle);
      this.#logger.warn(`job ${jobId}: its lease was lost while the worker was away`);
    }
    this.#crew.drop(lost);
    this.#acker.lookAgain();
  }

  #delivered(delivery: Delivery): void {
    const { handle, jobId } = delivery;
    if (this.#standing.held.has(handle)) return;
    this.#standing.held.set(handle, jobId);
    if (this.#quiet || this.#crew.full) this.#acker.settle(handle, RELEASED);
    else this.#crew.start(delivery);
  }

  #drained({ resumeWithin, reconnectDelay }: Draining): number {
    this.#standing.draining(fromDuration(resumeWithin));
    const delay = fromDuration(reconnectDelay) * (0.5 + Math.random());
    this.#logger.info(`queue ${this.#queue}: the server is going away; resuming in ${delay.toFixed(1)} s`);
    return delay;
  }

  #refused(error: JobwireError, resuming: boolean): number {
    if (OVER.has(error.reason) || (resuming && error instanceof InvalidArgument)) {
      this.#lost(error.message);
    } else if (!this.#everOpened && isUselessToRepeat(error)) {
      throw error;
    } else {
      const text = `queue ${this.#queue}: no stream, trying again: ${error.message}`;
      // Said once, not at each attempt.
      if (error.message === this.#trouble) this.#logger.debug(text);
      else this.#logger.warn(text);
      this.#trouble = error.message;
    }
    return this.#backoff.pause(error.retryAfter);
  }

  #lostByAck(session: string): void {
    if (session !== this.#standing.id) return;
    this.#lost("the server no longer knows it");
    this.#stream?.cancel();
  }

  #lost(why: string): void {
    const { id } = this.#standing;
    if (id) this.#logger.warn(`queue ${this.#queue}: session ${id} is over, its jobs are stopped: ${why}`);
    this.#standing.lost();
    this.#crew.dropAll();
  }

  #creditsWanted(): number {
    return this.#quiet ? 0 : this.#crew.places;
  }

  /** Leaves a stream that brings nothing, and stops handlers when nothing at all is heard of the server. */
  async #watch(): Promise<void> {
    const standing = this.#standing;
    while (!this.#over.up) {
      const dues: number[] = [];
      if (this.#stream !== undefined) {
        if (standing.eventDue > now()) {
          dues.push(standing.eventDue);
        } else {
          this.#logger.warn(`queue ${this.#queue}: the stream is silent; resuming over another connection`);
          standing.fellSilent();
          this.#stream.cancel();
          this.#connection.leave(this.#stream.line);
        }
      }
      if (standing.id) {
        if (standing.signDue > now()) dues.push(standing.signDue);
        else this.#crew.stopAll("silence");
      }
      standing.changed.lower();
      const due = dues.length > 0 ? Math.min(...dues) : undefined;
      await firstOf(due === undefined ? undefined : due - now(), standing.changed, this.#over);
      if (due !== undefined && now() > due + LATE) {
        // Node's timers come before its sockets: what the server said meanwhile lies unread.
        await firstOf(LATE, this.#over);
      }
    }
  }
}

function isUselessToRepeat(error: JobwireError): boolean {
  return (
    error instanceof InvalidArgument ||
    error instanceof PermissionDenied ||
    error instanceof Unauthenticated ||
    error instanceof Unimplemented
  );
}
