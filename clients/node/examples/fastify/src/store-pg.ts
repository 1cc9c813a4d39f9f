// The store with `pg`, in plain SQL.

import { randomUUID } from "node:crypto";
import pg from "pg";
import type { Decision } from "./screening.js";
import { SCREENINGS, type ScreeningData } from "./screening-job.js";
import { NameTaken, type NewScreening, type Screening, type Store } from "./store.js";

const UNIQUE_VIOLATION = "23505";

export class PgStore implements Store {
  readonly #pool: pg.Pool;

  constructor(databaseUrl: string) {
    this.#pool = new pg.Pool({ connectionString: databaseUrl });
    // An idle connection that breaks says so here; the pool has dropped it, and makes another when one is needed.
    this.#pool.on("error", (error) => console.warn(`a connection to the database broke: ${error.message}`));
  }

  async create({ name, criteria, items }: NewScreening): Promise<Screening> {
    const id = randomUUID();
    const data: ScreeningData = { screening_id: id };
    return this.#transaction(async (client) => {
      const published = await client.query("SELECT jobwire.publish($1, $2::jsonb) AS job_id", [
        SCREENINGS,
        JSON.stringify(data),
      ]);
      const [{ job_id: jobId }] = published.rows as [{ job_id: string }];
      await client.query("INSERT INTO screening (id, name, criteria, items, job_id) VALUES ($1, $2, $3, $4, $5)", [
        id,
        name,
        JSON.stringify(criteria),
        JSON.stringify(items),
        jobId,
      ]);
      return { id, jobId, name, criteria, items };
    }).catch((error) => {
      throw error.code === UNIQUE_VIOLATION ? new NameTaken(name) : error;
    });
  }

  async find(id: string): Promise<Screening | undefined> {
    const found = await this.#pool.query<Screening>(
      'SELECT id, name, criteria, items, job_id AS "jobId" FROM screening WHERE id = $1',
      [id],
    );
    return found.rows[0];
  }

  async saveDecisions(id: string, decisions: Decision[], attempt: number): Promise<void> {
    await this.#pool.query(
      `INSERT INTO decision (screening_id, item, verdict, reason, attempt)
       SELECT $1, item, verdict, reason, $3 FROM jsonb_to_recordset($2) AS d (item int, verdict text, reason text)
       ON CONFLICT (screening_id, item) DO UPDATE
       SET verdict = excluded.verdict, reason = excluded.reason, attempt = excluded.attempt
       WHERE decision.attempt <= excluded.attempt`,
      [id, JSON.stringify(decisions), attempt],
    );
  }

  async decisions(id: string): Promise<Decision[]> {
    const found = await this.#pool.query<Decision>(
      "SELECT item, verdict, reason FROM decision WHERE screening_id = $1 ORDER BY item",
      [id],
    );
    return found.rows;
  }

  async countDecisions(id: string) {
    const found = await this.#pool.query<{ verdict: Decision["verdict"]; count: number }>(
      "SELECT verdict, count(*)::int AS count FROM decision WHERE screening_id = $1 GROUP BY verdict",
      [id],
    );
    const counts = { include: 0, exclude: 0, unsure: 0 };
    for (const { verdict, count } of found.rows) counts[verdict] = count;
    return counts;
  }

  async close(): Promise<void> {
    await this.#pool.end();
  }

  async #transaction<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
    const client = await this.#pool.connect();
    let broken: Error | undefined;
    try {
      await client.query("BEGIN");
      const result = await work(client);
      await client.query("COMMIT");
      return result;
    } catch (error) {
      // A connection that cannot even roll back must not go back into the pool.
      await client.query("ROLLBACK").catch((failure) => {
        broken = failure;
      });
      throw error;
    } finally {
      client.release(broken);
    }
  }
}
