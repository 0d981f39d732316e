import { monotonicMs } from "../core/clock.ts";

/**
 * A push and a collection write objects about themselves, for the other to see, and write them anew as they go on. One that
 * was not written for this long counts as left by somebody who is gone.
 */
export const ABANDONED_NOTE_MS = 60 * 60 * 1000;
/** Its owner relies on it for half as long: the rest is for a request that is under way, and for clocks that differ. */
export const RELIABLE_NOTE_MS = ABANDONED_NOTE_MS / 2;

/** Milliseconds from now on, those included for which the machine sleeps: its monotonic clock stands still then. */
export function ageFromNow(): () => number {
  const [monotonic, wall] = [monotonicMs(), Date.now()];
  return () => Math.max(monotonicMs() - monotonic, Math.abs(Date.now() - wall));
}
