// For `prisma generate`, which `npm run build` runs.
import { defineConfig } from "prisma/config";

// Prisma fetches its schema engine before any command, but only its own migrations need that; ours are plain SQL.
process.env.PRISMA_SCHEMA_ENGINE_BINARY ??= process.execPath;

export default defineConfig({ schema: "prisma/schema.prisma" });
