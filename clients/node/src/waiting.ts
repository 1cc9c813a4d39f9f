// Waiting that can be given up: flags, and the first of several of them within a time. Nothing that waits here leaves anything
// behind: no timer, no listener. Times are in seconds.

/** The longest that a timer of Node takes, in milliseconds; a longer one would go off at once. */
const LONGEST_TIMER = 2 ** 31 - 1;

/** A timer of so many seconds. It keeps the process alive until it went off or was cleared. */
export function after(seconds: number, then: () => void): NodeJS.Timeout {
  return setTimeout(then, Math.min(Math.max(0, seconds * 1000), LONGEST_TIMER));
}

/** Something that holds or does not, and that one can wait for. */
export class Flag {
  #up: boolean;
  readonly #waiting = new Set<() => void>();

  constructor(up = false) {
    this.#up = up;
  }

  /** Whether it holds. */
  get up(): boolean {
    return this.#up;
  }

  /** It holds from now on. */
  raise(): void {
    this.#up = true;
    for (const wake of [...this.#waiting]) wake();
  }

  /** It holds no longer. */
  lower(): void {
    this.#up = false;
  }

  /** It holds, or not. */
  set(up: boolean): void {
    if (up) this.raise();
    else this.lower();
  }

  /** Calls `wake` at the next raise; only for `firstOf`, which takes it back. */
  await(wake: () => void): void {
    this.#waiting.add(wake);
  }

  /** Takes it back. */
  leave(wake: () => void): void {
    this.#waiting.delete(wake);
  }
}

/** Waits until one of several flags is up, but at most so many seconds; undefined: for ever. */
export function firstOf(seconds: number | undefined, ...flags: Flag[]): Promise<void> {
  if (flags.some((flag) => flag.up)) return Promise.resolve();
  return new Promise((resolve) => {
    const wake = () => {
      clearTimeout(timer);
      for (const flag of flags) flag.leave(wake);
      resolve();
    };
    const timer = seconds === undefined ? undefined : after(seconds, wake);
    for (const flag of flags) flag.await(wake);
  });
}

/** Lets everything run that is due in this turn of the event loop, what has arrived from the network included. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
