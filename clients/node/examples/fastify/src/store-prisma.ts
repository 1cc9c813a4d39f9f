// The store with Prisma. Its own tables go through the models; the job is published by raw SQL on the same transaction.

import { randomUUID } from "node:crypto";
import { PrismaPg } from "@prisma/adapter-pg";
import { Prisma, PrismaClient } from "./generated/prisma/client.js";
import type { Decision } from "./screening.js";
import { SCREENINGS, type ScreeningData } from "./screening-job.js";
import { NameTaken, type NewScreening, type Screening, type Store } from "./store.js";

const UNIQUE_VIOLATION = "P2002";

export class PrismaStore implements Store {
  readonly #prisma: PrismaClient;

  constructor(databaseUrl: string) {
    this.#prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString: databaseUrl }) });
  }

  async create({ name, criteria, items }: NewScreening): Promise<Screening> {
    const id = randomUUID();
    const data: ScreeningData = { screening_id: id };
    try {
      return await this.#prisma.$transaction(async (tx) => {
        const [{ job_id: jobId }] = await tx.$queryRaw<[{ job_id: string }]>`
          SELECT jobwire.publish(${SCREENINGS}, ${JSON.stringify(data)}::jsonb) AS job_id`;
        await tx.screening.create({ data: { id, name, criteria: json(criteria), items: json(items), jobId } });
        return { id, jobId, name, criteria, items };
      });
    } catch (error) {
      const taken = error instanceof Prisma.PrismaClientKnownRequestError && error.code === UNIQUE_VIOLATION;
      throw taken ? new NameTaken(name) : error;
    }
  }

  async find(id: string): Promise<Screening | undefined> {
    const found = await this.#prisma.screening.findUnique({ where: { id }, omit: { createdAt: true } });
    return (found as unknown as Screening | null) ?? undefined;
  }

  async saveDecisions(id: string, decisions: Decision[], attempt: number): Promise<void> {
    await this.#prisma.$executeRaw`
      INSERT INTO decision (screening_id, item, verdict, reason, attempt)
      SELECT ${id}::uuid, item, verdict, reason, ${attempt}
      FROM jsonb_to_recordset(${JSON.stringify(decisions)}::jsonb) AS d (item int, verdict text, reason text)
      ON CONFLICT (screening_id, item) DO UPDATE
      SET verdict = excluded.verdict, reason = excluded.reason, attempt = excluded.attempt
      WHERE decision.attempt <= excluded.attempt`;
  }

  async decisions(id: string): Promise<Decision[]> {
    const found = await this.#prisma.decision.findMany({
      where: { screeningId: id },
      select: { item: true, verdict: true, reason: true },
      orderBy: { item: "asc" },
    });
    return found as Decision[];
  }

  async countDecisions(id: string) {
    const found = await this.#prisma.decision.groupBy({
      by: ["verdict"],
      where: { screeningId: id },
      _count: true,
    });
    const counts = { include: 0, exclude: 0, unsure: 0 };
    for (const { verdict, _count } of found) counts[verdict as Decision["verdict"]] = _count;
    return counts;
  }

  async close(): Promise<void> {
    await this.#prisma.$disconnect();
  }
}

/** Prisma wants JSON typed as JSON; what we store is plain data. */
function json(value: object): Prisma.InputJsonValue {
  return value as Prisma.InputJsonValue;
}
