// What a session is to the server, as far as the worker knows. No I/O; all times are seconds of the monotonic clock.

import type { SessionOpened } from "./generated/jobwire/v1/queue_service.js";
import { now } from "./retrying.js";
import { Flag } from "./waiting.js";
import { fromDuration } from "./wire.js";

/** How long the first event of a stream may take, in seconds. */
const OPENING_TIME = 10;

/** The identity, terms and signs of life of one session. */
export class Standing {
  /** The session; empty if there is none. */
  id = "";
  /** The number of the last Subscribe that was made for it. */
  epoch = 0;
  /** The last event received on the present stream. */
  lastSequence = 0;
  /**
   * The job ids of the deliveries whose settling Ack has not been answered, by handle: nothing else may be named in a resume.
   */
  readonly held = new Map<string, string>();
  /** The credits that the server was told of last; undefined if it may have heard others since. */
  toldCredits: number | undefined = 0;
  /** Raised when the terms change, so that whoever sleeps until a time reckoned from them looks again. */
  readonly changed = new Flag();
  #grace = 0;
  #opened = false;
  #patient = false;
  #lastEvent = 0;
  #lastSign = 0;

  /** A new Subscribe is about to be made. */
  subscribing(creditsTold: number): void {
    this.lastSequence = 0;
    this.toldCredits = creditsTold;
    this.#opened = false;
    this.#lastEvent = now();
    if (this.id) this.epoch += 1;
    this.changed.raise();
  }

  /** The stream is open under these terms. */
  opened(opened: SessionOpened): void {
    this.id = opened.sessionId;
    this.epoch = Math.max(this.epoch, opened.epoch);
    this.#grace = Math.max(fromDuration(opened.resumeGrace), 3 * fromDuration(opened.heartbeatInterval));
    this.#opened = true;
    this.changed.raise();
  }

  /**
   * An Ack of that session and epoch has named credits. It may have counted though it was not answered; and one that a resume
   * has overtaken may have counted before or after that.
   */
  told(session: string, epoch: number, credits: number, answered: boolean): void {
    if (session === this.id) this.toldCredits = answered && epoch === this.epoch ? credits : undefined;
  }

  /** The server goes away, and waits so many seconds for a resume. */
  draining(resumeWithin: number): void {
    this.#grace = resumeWithin;
    this.changed.raise();
  }

  /** An event arrived. */
  event(sequence: number): void {
    this.lastSequence = sequence;
    this.#lastEvent = now();
    if (this.#opened) this.#patient = false;
    this.sign();
  }

  /** The server gave a sign of life. */
  sign(): void {
    this.#lastSign = now();
  }

  /** The stream was given up since it brought nothing. */
  fellSilent(): void {
    this.#patient = true;
  }

  /** The session is over. */
  lost(): void {
    this.id = "";
    this.epoch = 0;
    this.lastSequence = 0;
    this.held.clear();
  }

  /** Whether the last Subscribe has been answered: until then it may overrule what is said of credits. */
  get open(): boolean {
    return this.id !== "" && this.#opened;
  }

  /**
   * When a stream that brought no event until then is given up, and its connection with it.
   *
   * After half of the grace that holds: what is left of the time until `signDue` is for the resume, of which handlers then notice
   * nothing. A stream that follows a silent one has all that time, or a delivery that takes so long on a slow line would never
   * arrive.
   */
  get eventDue(): number {
    if (!this.#opened) return this.#lastEvent + OPENING_TIME;
    return this.#lastEvent + (this.#patient ? this.#silence : this.#grace / 2);
  }

  /** When handlers are stopped if nothing was heard of the server until then. */
  get signDue(): number {
    return this.#lastSign + this.#silence;
  }

  get #silence(): number {
    return (this.#grace * 2) / 3;
  }
}
