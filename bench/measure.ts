import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
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

/** What one run of a process took. */
export interface Measured {
  /** Start to exit. */
  readonly ms: number;
  /** What went over the loopback device meanwhile, by anybody: nothing else should use it. */
  readonly wireBytes: number;
  /** The most memory that was resident, sampled every few milliseconds. */
  readonly peakRssBytes: number;
  readonly stdout: string;
}

/** Runs a process to its end, which has to be a success, and measures it. */
export async function measureProcess(
  command: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<Measured> {
  const wireBefore = loopbackBytes();
  const started = performance.now();
  const child = spawn(command, args, { env, stdio: ["ignore", "pipe", "pipe"] });
  const output = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name].on("data", (data) => {
      output[name] += data;
    });
  }
  let peakRssBytes = 0;
  const sampler = setInterval(() => {
    peakRssBytes = Math.max(peakRssBytes, peakRss(child.pid));
  }, 5);
  const [exitCode] = await once(child, "close");
  clearInterval(sampler);
  const elapsed = performance.now() - started;
  if (exitCode !== 0) throw new Error(`${command} ${args.join(" ")} failed:\n${output.stderr}${output.stdout}`);
  return { ms: elapsed, wireBytes: loopbackBytes() - wireBefore, peakRssBytes, stdout: output.stdout };
}

/** Received bytes of /proc/net/dev (proc(5)): on the loopback device, what was sent is received. */
function loopbackBytes(): number {
  return Number(/^\s*lo:\s*(\d+)/m.exec(readFileSync("/proc/net/dev", "utf8"))?.[1] ?? 0);
}

/** VmHWM of /proc/PID/status (proc(5)). */
function peakRss(pid: number | undefined): number {
  try {
    return Number(/^VmHWM:\s*(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) * 1024;
  } catch {
    return 0; // it has just ended
  }
}
