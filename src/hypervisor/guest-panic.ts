import { lastLines } from "../core/text.ts";

/** The end of a guest's kernel that gave up. */
export interface GuestPanic {
  /** In the kernel's words. */
  readonly reason: string;
  readonly outOfMemory: boolean;
  /** The console's lines up to the panic, which say what led to it; the trace behind it does not. */
  readonly lines: string;
}

const LINES = 12;

/** Finds the last panic (kernel/panic.c), and the kernel's killings for memory before it (mm/oom_kill.c), on a console. */
export function panicOn(console: string): GuestPanic | undefined {
  const panic = [...console.matchAll(/Kernel panic - not syncing: ([^\r\n]*)/g)].at(-1);
  if (!panic) return undefined;
  const until = console.slice(0, panic.index + panic[0].length);
  const lines = lastLines(until, LINES);
  return { reason: lastLines(panic[1]!, 1), outOfMemory: /Out of memory|deadlocked on memory/.test(lines), lines };
}
