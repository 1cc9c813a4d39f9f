// Says of each compiled folder which kind of modules it holds: Node goes by the nearest package.json.
import { writeFileSync } from "node:fs";

writeFileSync("dist/esm/package.json", '{ "type": "module" }\n');
writeFileSync("dist/cjs/package.json", '{ "type": "commonjs" }\n');
