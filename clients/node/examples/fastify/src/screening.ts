// The core: screens a list of items. It knows no queue, no database and no request, and there is no second copy of it:
// a route calls it for a few items, the worker for many.

import type { Criteria, Item, Judge, Judgement } from "./judge.js";

/** Fewer items than this are screened while the request waits. */
export const FEW = 50;

/** Items are judged this many at a time; after each part there is progress. */
export const PART = 10;

export interface Decision extends Judgement {
  /** The item's place in the list, from 0. */
  item: number;
}

export interface ScreenOptions {
  /** Where to begin, if earlier work was interrupted. Default 0. */
  from?: number;
  /** Stops the work; the call rejects. */
  signal?: AbortSignal;
  /** Called after each part with its decisions, and how many items are done, those before `from` included. */
  onPart?: (decisions: Decision[], done: number) => Promise<void>;
}

/** Screens the items in their order and resolves to the decisions on those from `from` on. */
export async function screen(
  items: Item[],
  criteria: Criteria,
  judge: Judge,
  { from = 0, signal, onPart }: ScreenOptions = {},
): Promise<Decision[]> {
  const decisions: Decision[] = [];
  for (let start = from; start < items.length; start += PART) {
    signal?.throwIfAborted();
    const part = await Promise.all(
      items
        .slice(start, start + PART)
        .map(async (item, place) => ({ item: start + place, ...(await judge(item, criteria, signal)) })),
    );
    await onPart?.(part, start + part.length);
    decisions.push(...part);
  }
  return decisions;
}
