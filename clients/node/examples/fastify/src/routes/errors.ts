// What a failure means to whoever asked: "come again" while Jobwire is away or full, "no such thing", or a fault of ours.

import type { FastifyError, FastifyReply, FastifyRequest } from "fastify";
import { DeadlineExceeded, NotFound, Overloaded, QueueFull, Unavailable } from "jobwire";
import { NameTaken } from "../store.js";

const PASSING = [Unavailable, DeadlineExceeded, Overloaded, QueueFull];
const RETRY_SECONDS = 5;

/** A request that cannot be answered, in words for whoever sent it. */
export class BadRequest extends Error {
  readonly statusCode = 400;
}

export function errorHandler(error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
  if (error instanceof NotFound && error.reason === "JOB_NOT_FOUND") {
    reply.code(404).send({ error: "There is no such job, or it was finished too long ago." });
  } else if (error instanceof NameTaken) {
    reply.code(409).send({ error: error.message });
  } else if (PASSING.some((kind) => error instanceof kind)) {
    request.log.warn(error.message);
    const seconds = Math.ceil((error as Unavailable).retryAfter ?? RETRY_SECONDS);
    reply
      .code(503)
      .header("retry-after", seconds)
      .send({ error: "This takes no work at the moment; please try again." });
  } else if (error.statusCode !== undefined && error.statusCode < 500) {
    reply.code(error.statusCode).send({ error: error.message });
  } else {
    request.log.error(error);
    reply.code(500).send({ error: "Something went wrong on our side." });
  }
}
