// Says what became of deliveries, in as few calls as the network makes of them.
//
// One call with statements is on its way at a time; what gathers meanwhile goes into the next. A settling statement stays here
// until it is answered, whatever breaks in between: the stream, the server, the session itself. Heartbeats are answered by
// calls of their own, which no slow statement can hold up. A statement on a job that somebody else has locked in the database
// is found among its neighbours, and repeated apart from them until the lock is gone.

import type { Connection } from "./connection.js";
import { Aborted, InternalError, InvalidArgument, JobwireError, ResourceExhausted } from "./errors.js";
import type { Progress } from "./generated/jobwire/v1/job.js";
import {
  type AckItem,
  AckRequest,
  type AckResponse,
  type AckResult,
  AckStatus,
  CancelReason,
  type Extend,
  QueueServiceService,
} from "./generated/jobwire/v1/queue_service.js";
import type { Logger } from "./logging.js";
import { ackItem, badResult, RELEASED, type Settling } from "./outcome.js";
import { ATTEMPT_TIMEOUT, Backoff, now } from "./retrying.js";
import type { StopReason } from "./signals.js";
import type { Standing } from "./standing.js";
import { Flag, firstOf, nextTurn } from "./waiting.js";
import { MAX_CALL_BYTES, MAX_CALL_ITEMS, toDuration } from "./wire.js";

/** A locked statement is said again after up to so many seconds more than the server asks for. */
const LOCKED_PAUSE = 3;

/** More than the bytes of a statement besides its texts: tags, lengths, numbers, spans. */
const ITEM_FRAME = 64;

const ANSWERS_THAT_STOP = new Map<AckStatus, StopReason>([
  [AckStatus.LEASE_LOST, "lease_lost"],
  [AckStatus.NOT_FOUND, "lease_lost"],
  [AckStatus.CANCELLED, "requested"],
]);

/** What the server means by telling a worker to stop. */
export function stopReason(reason: CancelReason): StopReason {
  if (reason === CancelReason.EXPIRED) return "expired";
  return reason === CancelReason.LEASE_LOST ? "lease_lost" : "requested";
}

/** What is to be said of a delivery that still runs, and who waits for the answer. */
interface Extension {
  readonly item: AckItem;
  readonly said: Extend;
  readonly waiting: readonly (() => void)[];
}

/** What an Acker asks and tells. */
export interface AckerHooks {
  /** How many deliveries there may be at once; asked before each call. */
  creditsWanted(): number;
  /** The server's answer tells the handler of a delivery to stop. */
  onStop(handle: string, reason: StopReason): void;
  /** The server no longer knows this session. */
  onLost(sessionId: string): void;
}

/** The statements of one session's deliveries. */
export class Acker {
  /** Up while no settling statement waits for its answer. */
  readonly allAnswered = new Flag(true);
  readonly #connection: Connection;
  readonly #standing: Standing;
  readonly #hooks: AckerHooks;
  readonly #logger: Logger;
  readonly #settlings = new Map<string, Settling>();
  readonly #extensions = new Map<string, Extension>();
  /** Handles whose jobs are locked, and from when on to try again. */
  readonly #locked = new Map<string, number>();
  #turnOfLocked = false;
  /** Whether the farewell is said: that the session is over is no news then. */
  #leaving = false;
  readonly #work = new Flag();
  readonly #retryNow = new Flag();
  readonly #over = new Flag();
  readonly #ended = new AbortController();
  #receipt: { event: string; answered: Promise<void>; done: boolean } | undefined;

  constructor(connection: Connection, standing: Standing, hooks: AckerHooks, logger: Logger) {
    this.#connection = connection;
    this.#standing = standing;
    this.#hooks = hooks;
    this.#logger = logger;
  }

  /** How many settling statements wait for their answers. */
  get unanswered(): number {
    return this.#settlings.size;
  }

  /** Reports how a delivery ended; said once, it is repeated until it is answered. */
  settle(handle: string, outcome: Settling): void {
    this.#settlings.set(handle, outcome);
    this.forget(handle);
    this.allAnswered.lower();
    this.#work.raise();
  }

  /** Reports that a delivery still runs. Done when that is answered, or of no interest any more. */
  extend(handle: string, { progress, expireIn }: { progress?: Progress; expireIn?: number }): Promise<void> {
    if (this.#settlings.has(handle) || this.#over.up) return Promise.resolve();
    const before = this.#extensions.get(handle);
    const said: Extend = { ...before?.said };
    // A word without a checkpoint does not take back one that waits.
    if (progress) said.progress = { ...progress, checkpoint: progress.checkpoint ?? said.progress?.checkpoint };
    if (expireIn !== undefined) said.expireIn = toDuration(expireIn);
    const item: AckItem = { handle, outcome: { $case: "extend", value: said } };
    return new Promise((resolve) => {
      this.#extensions.set(handle, { item, said, waiting: [...(before?.waiting ?? []), resolve] });
      this.#work.raise();
    });
  }

  /** Says no more of a delivery than how it ended. */
  forget(handle: string): void {
    const extension = this.#extensions.get(handle);
    if (extension === undefined) return;
    this.#extensions.delete(handle);
    this.#locked.delete(handle);
    for (const answered of extension.waiting) answered();
  }

  /** The wanted credits may have changed, or the server may be back. */
  lookAgain(): void {
    this.#work.raise();
    this.#retryNow.raise();
  }

  /** Answers a heartbeat. Done when that arrived, or did not; never rejects. */
  async beat(): Promise<void> {
    const session = this.#standing.id;
    try {
      this.#takeSign(session, await this.#ack({ sessionId: session }));
    } catch (error) {
      this.#logger.debug(`heartbeat not answered: ${said(error)}`);
    }
  }

  /** Lets the server know of all that has arrived so far. Done when it does, or when it could not be told. */
  receipt(): Promise<void> {
    const { id, epoch, lastSequence } = this.#standing;
    const event = `${id} ${epoch} ${lastSequence}`; // each stream counts its own
    if (this.#receipt?.event !== event || this.#receipt.done) {
      // One call for all that came in one event.
      const receipt = { event, answered: this.beat(), done: false };
      void receipt.answered.then(() => {
        receipt.done = true;
      });
      this.#receipt = receipt;
    }
    return this.#receipt.answered;
  }

  /** Leaves: the session ends at once, and what it still holds is given back. */
  async closeSession(within: number): Promise<void> {
    const session = this.#standing.id;
    if (!session) return;
    this.#leaving = true;
    const request = AckRequest.fromPartial({
      sessionId: session,
      lastSequence: this.#standing.lastSequence,
      closeSession: true,
    });
    try {
      await this.#connection.call(QueueServiceService.ack, request, within, this.#ended.signal);
    } catch (error) {
      this.#logger.warn(`could not close session ${session}, it ends by itself: ${said(error)}`);
    }
  }

  /** Sends until `end`. */
  async run(): Promise<void> {
    const backoff = new Backoff();
    for (;;) {
      await firstOf(this.#untilLockedIsDue(), this.#work, this.#over);
      // What ends in the same turn of the event loop goes into one call.
      await nextTurn();
      this.#work.lower();
      for (;;) {
        if (this.#over.up) return;
        const items = this.#gathered();
        if (items.length === 0 && !this.#creditsDue()) break;
        const error = await this.#send(items);
        if (error === undefined) {
          backoff.reset();
          continue;
        }
        this.#retryNow.lower();
        const pause = backoff.pause(error.retryAfter);
        this.#logger.debug(`Ack not answered, again in ${pause.toFixed(1)} s: ${error.message}`);
        await firstOf(pause, this.#retryNow, this.#over);
      }
    }
  }

  /** Sends nothing more, and cancels what is under way. */
  end(): void {
    this.#over.raise();
    this.#ended.abort();
    for (const handle of [...this.#extensions.keys()]) this.forget(handle);
  }

  #untilLockedIsDue(): number | undefined {
    return this.#locked.size === 0 ? undefined : Math.min(...this.#locked.values()) - now();
  }

  /**
   * What goes into the next call. It is not taken away here: only an answer does that.
   *
   * Locked statements go alone, and in turn with what the others have to say.
   */
  #gathered(): AckItem[] {
    const group = this.#group();
    if (this.#locked.size > 0 && (this.#turnOfLocked || group.length === 0)) {
      const time = now();
      for (const [handle, due] of this.#locked) {
        const item = due <= time ? this.#item(handle) : undefined;
        if (item === undefined) continue;
        this.#turnOfLocked = false;
        return [item];
      }
    }
    this.#turnOfLocked = true;
    return group;
  }

  #item(handle: string): AckItem | undefined {
    const outcome = this.#settlings.get(handle);
    return outcome === undefined ? this.#extensions.get(handle)?.item : ackItem(handle, outcome);
  }

  #group(): AckItem[] {
    const items: AckItem[] = [];
    let size = 0;
    for (const handles of [this.#settlings.keys(), this.#extensions.keys()]) {
      for (const handle of handles) {
        const item = this.#locked.has(handle) ? undefined : this.#item(handle);
        if (item === undefined) continue;
        size += sizeOf(item);
        if (items.length > 0 && (items.length === MAX_CALL_ITEMS || size > MAX_CALL_BYTES)) return items;
        items.push(item);
      }
    }
    return items;
  }

  #creditsDue(): boolean {
    return !this.#leaving && this.#standing.open && this.#standing.toldCredits !== this.#hooks.creditsWanted();
  }

  /** Sends statements and takes their answers. Returns the error if some of them have to be sent again. */
  async #send(items: readonly AckItem[]): Promise<JobwireError | undefined> {
    const standing = this.#standing;
    const { id: session, epoch } = standing;
    const maxInFlight = this.#creditsDue() ? this.#hooks.creditsWanted() : undefined;
    // Not those that say something newer than the items of a group that is being taken apart.
    const extensions = items.map((item) => {
      const extension = this.#extensions.get(item.handle);
      return extension?.item === item ? extension : undefined;
    });
    let response: AckResponse;
    try {
      response = await this.#ack({ sessionId: session, items: [...items], maxInFlight });
      if (response.results.length !== items.length) {
        throw new InternalError(`${response.results.length} answers to ${items.length} statements`);
      }
    } catch (error) {
      if (maxInFlight !== undefined) standing.told(session, epoch, maxInFlight, false);
      if (error instanceof JobwireError) return this.#sortOut(items, error);
      if (this.#over.up) return undefined; // given up by `end`
      throw error;
    }
    if (maxInFlight !== undefined) standing.told(session, epoch, maxInFlight, true);
    for (const [place, item] of items.entries()) {
      const result = response.results[place] as AckResult;
      if (item.outcome?.$case === "extend") {
        this.#extended(item.handle, extensions[place], result);
        continue;
      }
      if (result.status !== AckStatus.APPLIED && result.status !== AckStatus.ALREADY_APPLIED)
        this.#inVain(item, result);
      this.#settled(item.handle);
    }
    this.#takeSign(session, response);
    return undefined;
  }

  /** Finds what a call failed for. Returns the error if all of it has to be sent again. */
  async #sortOut(items: readonly AckItem[], error: JobwireError): Promise<JobwireError | undefined> {
    const mayBeOne =
      error instanceof Aborted ||
      error instanceof InvalidArgument ||
      error instanceof ResourceExhausted ||
      error instanceof InternalError;
    const [item] = items;
    if (!mayBeOne || item === undefined) return error;
    if (items.length > 1) {
      // One of them may be bad, or locked: none may suffer for it.
      const middle = items.length >> 1;
      return (await this.#send(items.slice(0, middle))) ?? (await this.#send(items.slice(middle)));
    }
    const { handle } = item;
    if (error instanceof Aborted) {
      this.#lockedFor(handle, new Backoff(LOCKED_PAUSE).pause(error.retryAfter));
      return undefined;
    }
    if (error instanceof InvalidArgument) {
      this.#refused(item, error);
      return undefined;
    }
    const outcome = this.#settlings.get(handle);
    if (outcome !== undefined) {
      // Let the others pass.
      this.#settlings.delete(handle);
      this.#settlings.set(handle, outcome);
    }
    return error;
  }

  /** Leaves a statement out of the next calls; it may have been withdrawn meanwhile. */
  #lockedFor(handle: string, pause: number): void {
    this.#locked.delete(handle);
    if (this.#settlings.has(handle) || this.#extensions.has(handle)) this.#locked.set(handle, now() + pause);
  }

  #inVain(item: AckItem, result: AckResult): void {
    const kind = item.outcome?.$case;
    const status = Object.entries(AckStatus).find(([, number]) => number === result.status)?.[0] ?? result.status;
    const text = `job ${this.#jobOf(item.handle)}: its end (${kind}) does not count: ${status}`;
    if (kind === "release") this.#logger.debug(text);
    else this.#logger.warn(text);
  }

  #extended(handle: string, extension: Extension | undefined, result: AckResult): void {
    for (const answered of extension?.waiting ?? []) answered();
    // Something newer may be to be said by now.
    if (extension !== undefined && this.#extensions.get(handle) === extension) this.forget(handle);
    const stop = ANSWERS_THAT_STOP.get(result.status) ?? (result.cancel ? stopReason(result.cancel) : undefined);
    if (stop !== undefined) this.#hooks.onStop(handle, stop);
  }

  /** Replaces a statement that the server does not take by the next plainer one, so that the job gets an end. */
  #refused(item: AckItem, error: InvalidArgument): void {
    const { handle, outcome: statement } = item;
    const job = `job ${this.#jobOf(handle)}`;
    const outcome = this.#settlings.get(handle);
    if (outcome === undefined || statement?.$case === "extend") {
      this.#logger.error(`${job}: the server refused to extend it: ${error.message}`);
      this.forget(handle);
      return;
    }
    this.#logger.error(`${job}: the server refused its end (${statement?.$case}): ${error.message}`);
    if (outcome.kind === "released") this.#settled(handle);
    else this.#settlings.set(handle, outcome.kind === "failed" ? RELEASED : badResult(error.message));
  }

  #settled(handle: string): void {
    this.#settlings.delete(handle);
    this.#locked.delete(handle);
    this.#standing.held.delete(handle);
    if (this.#settlings.size === 0) this.allAnswered.raise();
  }

  #jobOf(handle: string): string {
    return this.#standing.held.get(handle) ?? handle;
  }

  #ack(request: { sessionId: string; items?: AckItem[]; maxInFlight?: number | undefined }): Promise<AckResponse> {
    const { lastSequence } = this.#standing;
    return this.#connection.attempt(
      QueueServiceService.ack,
      { items: [], ...request, lastSequence, closeSession: false },
      ATTEMPT_TIMEOUT,
      this.#ended.signal,
    );
  }

  #takeSign(session: string, response: AckResponse): void {
    this.#standing.sign();
    if (session && !response.sessionAlive && !this.#leaving) this.#hooks.onLost(session);
  }
}

/** No less than the bytes of a statement. */
function sizeOf({ handle, outcome }: AckItem): number {
  let size = ITEM_FRAME + handle.length;
  switch (outcome?.$case) {
    case "complete":
      size += Buffer.byteLength(outcome.value.output);
      break;
    case "fail":
      size += Buffer.byteLength(outcome.value.type + outcome.value.message + outcome.value.trace);
      break;
    case "extend":
      size += Buffer.byteLength((outcome.value.progress?.note ?? "") + (outcome.value.progress?.checkpoint ?? ""));
      break;
  }
  return size;
}

function said(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
