// The link between a running handler and the Acks: progress at a bearable pace, extensions at once.
//
// However often a handler reports, at most one word is sent per interval, and only the latest.

import type { Acker } from "./acking.js";
import type { Progress } from "./generated/jobwire/v1/job.js";
import type { Link } from "./job.js";
import { now } from "./retrying.js";
import { JobCancelled, type StopReason } from "./signals.js";
import { after } from "./waiting.js";

/** The shortest time between two reports of one job, in seconds. */
export const INTERVAL = 0.2;

/** The Link of one run. */
export class Reporter implements Link {
  /** Why the run is to stop; undefined as long as it is not. */
  stopped: StopReason | undefined;
  /** Called when the run is told to stop. */
  onStop: (() => void) | undefined;
  readonly #acker: Acker;
  readonly #handle: string;
  // Made when somebody looks: most handlers never do.
  #controller: AbortController | undefined;
  #latest: Progress | undefined;
  #leaving: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #nextAt = 0;
  #closed = false;

  constructor(acker: Acker, handle: string) {
    this.#acker = acker;
    this.#handle = handle;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.stopped !== undefined) this.#controller.abort(new JobCancelled(this.stopped));
    }
    return this.#controller.signal;
  }

  /** Tells the run to stop. */
  stop(reason: StopReason): void {
    this.stopped = reason;
    this.#controller?.abort(new JobCancelled(reason));
    this.onStop?.();
  }

  report(progress: Progress): void {
    if (this.#closed) return;
    this.#latest = { ...progress, checkpoint: progress.checkpoint ?? this.#latest?.checkpoint };
    this.#timer ??= after(this.#nextAt - now(), () => this.#send());
  }

  async extend(seconds: number): Promise<void> {
    if (!this.#closed) await this.#acker.extend(this.#handle, { expireIn: seconds });
  }

  /** Whether a checkpoint has not been answered yet, so that it may be lost with what is said next. */
  get leaves(): boolean {
    return this.#latest?.checkpoint !== undefined || this.#leaving !== undefined;
  }

  /** Lets the checkpoint arrive, before the end of the run is reported. */
  async left(): Promise<void> {
    if (this.#latest?.checkpoint !== undefined) this.#send();
    await this.#leaving;
  }

  /** The run is over: what is said from now on is of no interest. */
  close(): void {
    this.#closed = true;
    this.#latest = undefined;
    clearTimeout(this.#timer);
  }

  #send(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const progress = this.#latest;
    this.#latest = undefined;
    if (progress === undefined) return;
    this.#nextAt = now() + INTERVAL;
    const answered = this.#acker.extend(this.#handle, { progress });
    if (progress.checkpoint === undefined) return;
    this.#leaving = answered;
    void answered.then(() => {
      if (this.#leaving === answered) this.#leaving = undefined;
    });
  }
}
