// POST /screenings: a few items are screened while the request waits; many become a business row and its job, stored in
// one transaction. GET /screenings/:id: what has been decided so far.

import type { FastifyInstance } from "fastify";
import type { Judge } from "../judge.js";
import { FEW, screen } from "../screening.js";
import type { NewScreening, Store } from "../store.js";

const WORDS = { type: "array", items: { type: "string", minLength: 1, maxLength: 100 }, maxItems: 100 } as const;
const BODY = {
  type: "object",
  required: ["name", "criteria", "items"],
  properties: {
    name: { type: "string", minLength: 1, maxLength: 200 },
    criteria: { type: "object", required: ["include", "exclude"], properties: { include: WORDS, exclude: WORDS } },
    items: {
      type: "array",
      minItems: 1,
      maxItems: 10_000,
      items: {
        type: "object",
        required: ["title", "abstract"],
        properties: { title: { type: "string" }, abstract: { type: "string" } },
      },
    },
  },
} as const;
const PARAMS = { type: "object", properties: { id: { type: "string", format: "uuid" } } } as const;
const MAX_BYTES = 32 * 1024 * 1024;

export async function screeningRoutes(app: FastifyInstance, { store, judge }: { store: Store; judge: Judge }) {
  app.post<{ Body: NewScreening }>(
    "/screenings",
    { schema: { body: BODY }, bodyLimit: MAX_BYTES },
    async (request, reply) => {
      const { items, criteria } = request.body;
      if (items.length < FEW) {
        return { decisions: await screen(items, criteria, judge) };
      }
      // Needs no Jobwire server, only the database: the job is picked up when there is one.
      const { id, jobId } = await store.create(request.body);
      return reply.code(202).header("location", `/screenings/${id}`).send({ screeningId: id, jobId });
    },
  );

  app.get<{ Params: { id: string } }>("/screenings/:id", { schema: { params: PARAMS } }, async (request, reply) => {
    const screening = await store.find(request.params.id);
    if (screening === undefined) {
      return reply.code(404).send({ error: "There is no such screening." });
    }
    const { id, name, jobId, items } = screening;
    return { screeningId: id, name, jobId, items: items.length, decisions: await store.decisions(id) };
  });
}
