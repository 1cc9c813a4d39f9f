// Waiting that an AbortSignal ends.

import { setMaxListeners } from "node:events";

/** Resolves after so many seconds; rejects with the signal's reason when that is aborted, also before. */
export function pause(seconds: number, signal?: AbortSignal): Promise<void> {
  return abortable(signal, (resolve) => {
    const timer = setTimeout(resolve, seconds * 1000);
    return () => clearTimeout(timer);
  });
}

/**
 * A promise that rejects with the signal's reason when that is aborted, also before. `start` is run unless the signal is aborted
 * already, and may return what is to be done when it is.
 */
export function abortable<T>(
  signal: AbortSignal | undefined,
  // biome-ignore lint/suspicious/noConfusingVoidType: as in the callbacks of effects, returning nothing is fine
  start: (resolve: (value: T) => void, reject: (error: unknown) => void) => (() => void) | void,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    let undo: (() => void) | undefined;
    const abort = () => {
      undo?.();
      reject(signal?.reason);
    };
    const forget = onAbort(signal, abort);
    undo =
      start(
        (value) => {
          forget();
          resolve(value);
        },
        (error) => {
          forget();
          reject(error);
        },
      ) ?? undefined;
  });
}

/** Calls `abort` when the signal is aborted. Returns what takes that back. */
export function onAbort(signal: AbortSignal | undefined, abort: () => void): () => void {
  if (signal !== undefined) {
    // One signal may end any number of calls, such as that of a request or of the whole program: no leak to be warned of.
    setMaxListeners(0, signal);
    signal.addEventListener("abort", abort, { once: true });
  }
  return () => signal?.removeEventListener("abort", abort);
}
