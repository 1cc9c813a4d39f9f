// The runs of one handler: each delivery in hand, from its start to the report of its end.
//
// A delivery that is dropped (its lease is gone) is no longer reported on, but its handler may need time to end; until then its
// place is not free, and the server is asked for fewer jobs.

import type { Acker } from "./acking.js";
import type { Delivery } from "./generated/jobwire/v1/queue_service.js";
import type { Logger } from "./logging.js";
import { type Outcome, RELEASED, type Settling, STOPPED, settling, thrown } from "./outcome.js";
import { Reporter } from "./reporting.js";
import type { Runner } from "./running.js";
import type { StopReason } from "./signals.js";
import { Flag } from "./waiting.js";

/** One delivery in the hands of a handler. */
interface Run {
  readonly delivery: Delivery;
  readonly reporter: Reporter;
  dropped: boolean;
}

/** At most `size` runs at once. */
export class Crew {
  /** Up while nothing runs. */
  readonly idle = new Flag(true);
  /** Up while at least one delivery may come. */
  readonly hasPlace = new Flag(true);
  readonly #size: number;
  readonly #runner: Runner;
  readonly #acker: Acker;
  readonly #logger: Logger;
  readonly #runs = new Map<string, Run>();
  #dropped = 0;

  constructor(size: number, runner: Runner, acker: Acker, logger: Logger) {
    this.#size = size;
    this.#runner = runner;
    this.#acker = acker;
    this.#logger = logger;
  }

  /** How many deliveries there may be at once, now: the size less what runs on without a lease. */
  get places(): number {
    return Math.max(0, this.#size - this.#dropped);
  }

  /** Whether no further delivery may be started. */
  get full(): boolean {
    return this.#runs.size >= this.#size;
  }

  /** Whether the handler of a delivery still runs. */
  runs(handle: string): boolean {
    return this.#runs.has(handle);
  }

  /** Runs the handler on a delivery. */
  start(delivery: Delivery): void {
    const run: Run = { delivery, reporter: new Reporter(this.#acker, delivery.handle), dropped: false };
    this.#runs.set(delivery.handle, run);
    this.idle.lower();
    void this.#seeThrough(run);
  }

  /** Tells a handler to stop. How it ends is reported as ever. */
  stop(handle: string, reason: StopReason): void {
    const run = this.#runs.get(handle);
    if (run === undefined || run.reporter.stopped !== undefined) return;
    this.#logger.info(`job ${run.delivery.jobId}: told to stop (${reason})`);
    run.reporter.stop(reason);
  }

  /** Tells all handlers to stop. */
  stopAll(reason: StopReason): void {
    for (const handle of [...this.#runs.keys()]) this.stop(handle, reason);
  }

  /** Stops handlers whose deliveries are gone. */
  drop(handles: Iterable<string>): void {
    for (const handle of handles) {
      const run = this.#runs.get(handle);
      if (run === undefined || run.dropped) continue;
      this.#leaveOut(run);
      this.#acker.forget(handle);
      this.stop(handle, "lease_lost");
    }
  }

  /** Stops all handlers: their session is gone. */
  dropAll(): void {
    this.drop([...this.#runs.keys()]);
  }

  /** Gives back what did not stop in time, though its handler may still run, and waits no longer. */
  abandon(): void {
    for (const [handle, run] of this.#runs) {
      this.#logger.warn(
        `job ${run.delivery.jobId}: its handler did not stop in time; the job is given back, and the handler left to itself`,
      );
      if (run.dropped) continue;
      this.#leaveOut(run);
      this.#acker.settle(handle, RELEASED);
    }
  }

  async #seeThrough(run: Run): Promise<void> {
    const { delivery, reporter } = run;
    let outcome: Outcome;
    try {
      // It may be the job that kills its worker, at once: that is counted only when its receipt is known.
      if (delivery.attempt > 1) await this.#received(reporter);
      outcome = reporter.stopped === undefined ? await this.#runner.run(delivery, reporter) : STOPPED;
      if (reporter.leaves && outcome.kind !== "completed") await reporter.left();
    } catch (error) {
      outcome = thrown(error); // whatever broke, the job gets an end
    }
    this.#ended(run, outcome);
  }

  /** Waits until the receipt is known, or the run is to stop before it has begun. */
  async #received(reporter: Reporter): Promise<void> {
    const told = new Promise<void>((resolve) => {
      reporter.onStop = resolve;
    });
    await Promise.race([this.#acker.receipt(), told]);
    reporter.onStop = undefined;
  }

  #leaveOut(run: Run): void {
    run.dropped = true;
    run.reporter.close();
    this.#dropped += 1;
    this.hasPlace.set(this.places > 0);
  }

  #ended(run: Run, outcome: Outcome): void {
    const { delivery, reporter, dropped } = run;
    this.#runs.delete(delivery.handle);
    reporter.close();
    if (dropped) {
      this.#dropped -= 1;
      this.#acker.lookAgain();
    } else {
      const said = settling(outcome, reporter.stopped);
      this.#tell(delivery, said);
      this.#acker.settle(delivery.handle, said);
    }
    this.hasPlace.set(this.places > 0);
    this.idle.set(this.#runs.size === 0);
  }

  #tell(delivery: Delivery, said: Settling): void {
    const job = `job ${delivery.jobId}`;
    if (said.kind === "completed") this.#logger.debug(`${job}: completed`);
    else if (said.kind === "released") this.#logger.info(`${job}: given back`);
    else {
      const how = said.permanent ? "failed for good" : "failed";
      this.#logger.warn(`${job}: ${how}: ${said.type}: ${said.message}`, { trace: said.trace });
    }
  }
}
