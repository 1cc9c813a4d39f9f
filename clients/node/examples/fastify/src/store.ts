// What the application keeps in its database, and its two implementations: store-pg.ts and store-prisma.ts. Take the one
// whose library you use.

import type { Config } from "./config.js";
import type { Criteria, Item, Judgement } from "./judge.js";
import type { Decision } from "./screening.js";

export interface NewScreening {
  /** Unique among all screenings. */
  name: string;
  criteria: Criteria;
  items: Item[];
}

export interface Screening extends NewScreening {
  id: string;
  jobId: string;
}

export interface Store {
  /**
   * Stores a screening and publishes its job in one transaction: either both are there afterwards, or neither.
   * Rejects with NameTaken if there is a screening of that name.
   */
  create(screening: NewScreening): Promise<Screening>;
  find(id: string): Promise<Screening | undefined>;
  /** Upserts decisions; one that a later attempt has written stands. */
  saveDecisions(id: string, decisions: Decision[], attempt: number): Promise<void>;
  /** The decisions so far, in the order of the items. */
  decisions(id: string): Promise<Decision[]>;
  /** How many there are of each verdict. */
  countDecisions(id: string): Promise<Record<Judgement["verdict"], number>>;
  close(): Promise<void>;
}

export class NameTaken extends Error {
  constructor(name: string) {
    super(`there is a screening named ${JSON.stringify(name)} already`);
  }
}

/** The store that the configuration asks for. */
export async function openStore({ store, databaseUrl }: Config): Promise<Store> {
  if (store === "prisma") {
    const { PrismaStore } = await import("./store-prisma.js");
    return new PrismaStore(databaseUrl);
  }
  const { PgStore } = await import("./store-pg.js");
  return new PgStore(databaseUrl);
}
