// The queue's side of a screening: what a job carries, and how the core is run for one.
//
// Always holds: however often a job runs and wherever a run stops, each item ends up with one decision. Decisions are
// upserted by their key, and only then does the checkpoint move past them.

import { FailForGood, type Job } from "jobwire";
import type { Judge } from "./judge.js";
import { type Decision, screen } from "./screening.js";
import type { Store } from "./store.js";

export const SCREENINGS = "screenings";

/** The payload: the key of the business row, not its content. */
export interface ScreeningData {
  screening_id: string;
}

/** What is left for the next run, should this one not finish. */
interface Checkpoint {
  done: number;
}

export interface ScreeningOutput {
  items: number;
  include: number;
  exclude: number;
  unsure: number;
}

export function screeningHandler(store: Store, judge: Judge) {
  return async (job: Job<ScreeningData>): Promise<ScreeningOutput> => {
    const screening = await store.find(job.data.screening_id);
    if (screening === undefined) {
      throw new FailForGood("The screening was deleted before its turn came.");
    }
    const { id, items, criteria } = screening;
    const onPart = async (decisions: Decision[], done: number) => {
      await store.saveDecisions(id, decisions, job.attempt);
      const checkpoint: Checkpoint = { done };
      await job.progress(done / items.length, `${done} of ${items.length} items`, { checkpoint });
    };
    const from = (job.checkpoint as Checkpoint | undefined)?.done ?? 0;
    await screen(items, criteria, judge, { from, signal: job.signal, onPart });
    return { items: items.length, ...(await store.countDecisions(id)) };
  };
}
