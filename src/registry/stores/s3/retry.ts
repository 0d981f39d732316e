import { isErrno } from "../../../core/errors.ts";
import { MiB } from "../../../core/sizes.ts";
import { pause } from "../pause.ts";
import { BrokenOff, Stalled } from "./exchange.ts";
import { Refusal } from "./refusal.ts";

export interface RetryPolicy {
  /** Attempts without progress, the first included. */
  readonly attempts: number;
  /** The first wait is at most this long, and each one after it at most twice the one before. */
  readonly firstWaitMs: number;
  readonly longestWaitMs: number;
}

/** About 11 s of waiting in the mean, 22 s at most: a server that restarts, or asks to slow down, is back by then. */
export const DEFAULT_RETRIES: RetryPolicy = { attempts: 8, firstWaitMs: 200, longestWaitMs: 10_000 };
/** Who can't be connected to at all is more likely misconfigured than restarting: the user hears of it soon. */
const CONNECT_ATTEMPTS = 3;
/** An attempt that brought this much counts as progress; less could go on for ever. */
const PROGRESS_BYTES = MiB / 16;

/**
 * Does `attempt` until it works: again after 429, 5xx and broken connections, never after another refusal. `progress` counts what
 * attempts brought so far; as long as it grows, they go on.
 */
export async function withRetries<T>(
  policy: RetryPolicy,
  signal: AbortSignal,
  attempt: (again: boolean) => Promise<T>,
  progress: () => number = () => 0,
): Promise<T> {
  let before = progress();
  for (let failures = 0, again = false; ; again = true) {
    try {
      return await attempt(again);
    } catch (error) {
      signal.throwIfAborted();
      if (progress() - before >= PROGRESS_BYTES) failures = 0;
      before = progress();
      failures++;
      if (failures >= attemptsFor(error, policy)) throw error;
      await pause(waitMs(failures, policy, error), signal);
    }
  }
}

function attemptsFor(error: unknown, { attempts }: RetryPolicy): number {
  if (error instanceof Refusal) return isPassing(error.status) ? attempts : 1;
  if (error instanceof Stalled || error instanceof BrokenOff) return attempts;
  if (isErrno(error, "ECONNRESET", "EPIPE", "ECONNABORTED")) return attempts;
  if (isErrno(error, "ECONNREFUSED", "ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH", "EAI_AGAIN")) {
    return Math.min(attempts, CONNECT_ATTEMPTS);
  }
  // No HTTP: what an answer before it left on the connection, or another kind of server.
  if (error instanceof Error && "code" in error && String(error.code).startsWith("HPE_")) {
    return Math.min(attempts, CONNECT_ATTEMPTS);
  }
  return 1;
}

/** 501 and 505 will not pass. */
function isPassing(status: number): boolean {
  return status === 429 || status === 500 || status === 502 || status === 503 || status === 504;
}

/** A random time below a bound that doubles, so that many clients of one server do not come back all at once. */
function waitMs(failures: number, policy: RetryPolicy, error: unknown): number {
  const bound = Math.min(policy.longestWaitMs, policy.firstWaitMs * 2 ** (failures - 1));
  const asked = error instanceof Refusal ? error.retryAfterMs : 0;
  return Math.min(policy.longestWaitMs, asked + Math.random() * bound);
}
