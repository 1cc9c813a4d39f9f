// What `import { … } from "jobwire"` offers: publishing, waiting, working, and what goes wrong in them.

export {};
