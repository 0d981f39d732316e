import { run } from "../src/core/process.ts";

/** The middle of several measurements, which a few disturbed ones do not move. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Wall time of a whole process, start to exit, in milliseconds. It has to succeed. */
export async function timeProcess(command: string, args: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const started = performance.now();
  const result = await run(command, args, { env, timeoutMs: 300_000 });
  const elapsed = performance.now() - started;
  if (result.exitCode !== 0) throw new Error(`${command} ${args.join(" ")} failed:\n${result.stderr}${result.stdout}`);
  return elapsed;
}

/** Runs `count` tasks, `width` at a time, and returns the wall time of all, in milliseconds. */
export async function timeAll(
  count: number,
  width: number,
  task: (index: number) => Promise<unknown>,
): Promise<number> {
  const started = performance.now();
  let next = 0;
  const worker = async () => {
    while (next < count) await task(next++);
  };
  await Promise.all(Array.from({ length: width }, worker));
  return performance.now() - started;
}

export interface Verdict {
  readonly what: string;
  readonly measured: string;
  readonly bare: string;
  readonly promise: string;
  readonly kept: boolean;
}
