// Judges one item. In a real service this is a call of a language model; here a look for words, and a pause as long as
// such a call would take.

import { setTimeout as pause } from "node:timers/promises";

export interface Item {
  title: string;
  abstract: string;
}

/** Words, in lower case. */
export interface Criteria {
  include: string[];
  exclude: string[];
}

export interface Judgement {
  verdict: "include" | "exclude" | "unsure";
  reason: string;
}

export type Judge = (item: Item, criteria: Criteria, signal?: AbortSignal) => Promise<Judgement>;

export function wordJudge(seconds: number): Judge {
  return async (item, criteria, signal) => {
    await pause(seconds * 1_000, undefined, { signal });
    const text = `${item.title} ${item.abstract}`.toLowerCase();
    const against = criteria.exclude.find((word) => text.includes(word));
    if (against !== undefined) {
      return { verdict: "exclude", reason: `mentions ${against}` };
    }
    const wanted = criteria.include.find((word) => text.includes(word));
    if (wanted !== undefined) {
      return { verdict: "include", reason: `mentions ${wanted}` };
    }
    return { verdict: "unsure", reason: "mentions none of the words" };
  };
}
