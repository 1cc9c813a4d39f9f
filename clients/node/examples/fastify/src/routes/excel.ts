// POST /excel: stores an uploaded workbook and publishes the job that parses it; answers with the job's id at once.
//
// The job carries the key of the file, not its content. Whatever works on the queue reads the file from the same
// storage: here that is the Excel worker, which is written in Python.

import { createWriteStream } from "node:fs";
import { open, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { FastifyInstance } from "fastify";
import { type Client, newJobId } from "jobwire";
import { BadRequest } from "./errors.js";

const EXCEL = "excel-parse";
const MAX_BYTES = 512 * 1024 * 1024;
const ZIP = Buffer.from("PK\u0003\u0004");

export async function excelRoutes(app: FastifyInstance, { client, storage }: { client: Client; storage: string }) {
  app.post("/excel", async (request, reply) => {
    if (!request.isMultipart()) {
      throw new BadRequest("Send the workbook as a form with one file (multipart/form-data).");
    }
    const upload = await request.file({ limits: { fileSize: MAX_BYTES, files: 1 } });
    if (upload === undefined) {
      throw new BadRequest("The form has no file: choose a workbook.");
    }
    // The job's id is made here, so it can name the file, and publishing can be repeated without making a second job.
    const jobId = newJobId();
    const fileKey = `uploads/${jobId}.xlsx`;
    const path = join(storage, fileKey);
    try {
      await store(upload.file, path);
      await client.publish(EXCEL, { file_key: fileKey }, { id: jobId });
    } catch (error) {
      // Whoever sent it hears that it was not taken, and sends it again.
      await rm(path, { force: true });
      throw error;
    }
    return reply.code(202).header("location", `/jobs/${jobId}`).send({ jobId });
  });
}

/** Writes the upload to `path`, which exists only when all of it is there. */
async function store(upload: Readable & { truncated?: boolean }, path: string): Promise<void> {
  const unfinished = `${path}.part`;
  try {
    await pipeline(upload, createWriteStream(unfinished));
    if (upload.truncated) {
      throw new BadRequest(`The file is too large: at most ${MAX_BYTES / 1024 ** 2} MiB can be read.`);
    }
    if (!(await beginsWith(unfinished, ZIP))) {
      throw new BadRequest("The file is not an .xlsx workbook: save it as one in a spreadsheet program.");
    }
    await rename(unfinished, path);
  } finally {
    await rm(unfinished, { force: true });
  }
}

async function beginsWith(path: string, bytes: Buffer): Promise<boolean> {
  const file = await open(path);
  try {
    const { buffer } = await file.read(Buffer.alloc(bytes.length), 0, bytes.length, 0);
    return buffer.equals(bytes);
  } finally {
    await file.close();
  }
}
