// Removes what an earlier compilation left, so that a file that is gone leaves nothing behind.
import { rmSync } from "node:fs";

for (const folder of ["dist", "build"]) rmSync(folder, { recursive: true, force: true });
