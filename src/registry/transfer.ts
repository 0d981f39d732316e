import { monotonicMs } from "../core/clock.ts";
import type { Context } from "../core/context.ts";
import { formatBytes, formatMs } from "../core/sizes.ts";

/** Bytes of a push or a pull, by where they came from. */
export interface TransferTotals {
  /** Bytes of all files, holes included. */
  logical: number;
  /** Zeros: neither stored nor sent. */
  zero: number;
  /** Found on the other side already (push), or on this machine (pull). */
  reused: number;
  /** Content that had to be transferred, before compression. */
  new: number;
  /** What that took on the wire: compressed. */
  transferred: number;
}

export function noTotals(): TransferTotals {
  return { logical: 0, zero: 0, reused: 0, new: 0, transferred: 0 };
}

/** How often people are told; more would only cost time. */
const REPORT_MS = 100;

/** Says how far a transfer is: bytes, rate, time left. */
export function transferProgress(ctx: Context, doing: string, totals: TransferTotals): () => void {
  const started = monotonicMs();
  let reported = started;
  let done = 0;
  const before = totals.new;
  return () => {
    const now = monotonicMs();
    if (now - reported < REPORT_MS) return;
    reported = now;
    done = totals.zero + totals.reused + totals.new;
    const seconds = (now - started) / 1000;
    const rate = (totals.new - before) / seconds;
    const left = rate > 0 ? `, ${formatMs(((totals.logical - done) / rate) * 1000)} left` : "";
    ctx.report({
      kind: "detail",
      text: `${doing} ${formatBytes(done)} of ${formatBytes(totals.logical)}, ${formatBytes(rate)}/s${left}`,
    });
  };
}

/** `59 MiB new (17 MiB sent), 120 MiB reused, 1.2 GiB zeros`. */
export function describeTotals(totals: TransferTotals, verb: "sent" | "fetched"): string {
  return [
    `${formatBytes(totals.new)} new (${formatBytes(totals.transferred)} ${verb})`,
    `${formatBytes(totals.reused)} reused`,
    `${formatBytes(totals.zero)} zeros`,
  ].join(", ");
}
