import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { readdirSync } from "node:fs";
import { resolvePaths } from "../../src/core/paths.ts";
import { run } from "../../src/core/process.ts";
import { checkInstances } from "../../src/instance/checks.ts";
import { checkTemplates } from "../../src/template/checks.ts";
import { LAUNCHER, type Mvmctl } from "./mvmctl.ts";

/** Runs a command that is killed on the way, if it is not done before. */
export type Kill = (args: readonly string[]) => Promise<void>;

/** Decides which moments are tried. A failure names it: a run with the same one tries the same moments again. */
const SEED = process.env["MVM_TEST_SEED"] ?? String(Date.now() % 1_000_000);

export interface Moments {
  readonly count: number;
  /** The time in which to kill, in milliseconds from the start. */
  readonly fromMs?: number;
  readonly toMs: number;
}

/**
 * Calls `round` for each of `count` moments; the `kill` it is given runs a command and kills it at that moment. Each is at random
 * in a part of its own of the time: all of it is tried, in each run at other places.
 */
export async function atRandomMoments(
  mvm: Mvmctl,
  { count, fromMs = 0, toMs }: Moments,
  round: (kill: Kill, index: number) => Promise<void>,
): Promise<void> {
  for (let index = 0; index < count; index++) {
    const random = createHash("sha256").update(`${SEED} ${index}`).digest().readUInt32BE() / 2 ** 32;
    const afterMs = fromMs + ((index + random) / count) * (toMs - fromMs);
    const where = `killed after ${afterMs.toFixed(1)} of ${toMs.toFixed(0)} ms (MVM_TEST_SEED=${SEED})`;
    await telling(where, () => round((args) => killAfter(mvm, args, afterMs), index));
  }
}

async function killAfter(mvm: Mvmctl, args: readonly string[], afterMs: number): Promise<void> {
  const child = spawn(process.execPath, [LAUNCHER, ...args], { env: mvm.env, stdio: "ignore" });
  const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
  const timer = setTimeout(() => child.kill("SIGKILL"), afterMs);
  const exitCode = await ended;
  clearTimeout(timer);
  assert.ok(exitCode === null || exitCode === 0, `mvmctl ${args.join(" ")} failed by itself, with ${exitCode}`);
}

/** System calls that change a file or a name. */
const CHANGES = ["write", "rename", "unlink", "unlinkat", "rmdir", "mkdir"];
const KILLED = 137;

/**
 * Calls `round` for each call by which a command changes something; the `kill` it is given runs the command and kills it when it
 * makes that call, which has no effect any more. Needs strace.
 */
export async function atEachChange(mvm: Mvmctl, round: (kill: Kill) => Promise<void>): Promise<void> {
  for (const call of CHANGES) {
    for (let nth = 1, more = true; more; nth++) {
      const inject = ["-e", `trace=${call}`, "-e", `inject=${call}:signal=SIGKILL:when=${nth}`];
      const strace = ["-f", "-qq", "-o", "/dev/null", ...inject, process.execPath, LAUNCHER];
      const kill = async (args: readonly string[]) => {
        const { exitCode, stderr } = await run("strace", [...strace, ...args], { env: mvm.env });
        assert.ok(exitCode === KILLED || exitCode === 0, stderr);
        more = exitCode === KILLED;
      };
      await telling(`killed at the ${nth}. ${call}`, () => round(kill));
    }
  }
}

/** Says in an error where it happened. */
async function telling(where: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    throw new Error(`${where}: ${(error as Error).message}`, { cause: error });
  }
}

/** How long a command takes when nobody disturbs it, in milliseconds. */
export async function durationOf(mvm: Mvmctl, args: readonly string[]): Promise<number> {
  const started = performance.now();
  await mvm.ok(args);
  return performance.now() - started;
}

/** What commands left half-made, anywhere in a directory. */
export function leftovers(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: "utf8" }).filter((path) => path.includes(".staging-"));
}

/** What the doctor looks at in a data directory is as it should be, and what was left half-made is gone once it has looked. */
export async function requireSound({ dataDir, env }: Mvmctl): Promise<void> {
  const paths = resolvePaths(env);
  const checks = [...(await checkTemplates(paths, new AbortController().signal)), ...checkInstances(paths)];
  assert.deepEqual(
    checks.filter(({ state }) => state !== "ok"),
    [],
  );
  assert.deepEqual(leftovers(dataDir), []);
}
