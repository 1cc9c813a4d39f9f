// `npm run migrate`: makes the application's tables. Running it again changes nothing.

import { readFile } from "node:fs/promises";
import pg from "pg";
import { readConfig } from "./config.js";

const client = new pg.Client({ connectionString: readConfig().databaseUrl });
await client.connect();
try {
  await client.query(await readFile(new URL("../migrations/0001_screening.sql", import.meta.url), "utf8"));
  console.log("the tables are there");
} finally {
  await client.end();
}
