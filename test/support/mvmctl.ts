import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type RunOptions, type RunResult, run } from "../../src/core/process.ts";
import { findVmProcesses, signalProcess } from "../../src/core/process-identity.ts";

export const REPOSITORY = join(import.meta.dirname, "..", "..");
export const LAUNCHER = join(REPOSITORY, "bin", "mvmctl.js");

/** The command line as a user types it, with a data directory of its own. */
export interface Mvmctl extends Disposable {
  readonly dataDir: string;
  readonly env: NodeJS.ProcessEnv;
  /** Runs `mvmctl ARGS` to its end, whatever its exit code. */
  run(args: readonly string[], options?: RunOptions): Promise<RunResult>;
  /** Runs `mvmctl ARGS`, which has to succeed, and returns its standard output. */
  ok(args: readonly string[], options?: RunOptions): Promise<string>;
  /** Runs `mvmctl ARGS --json`, which has to succeed. */
  json<T = Record<string, unknown>>(args: readonly string[], options?: RunOptions): Promise<T>;
  /** Runs `mvmctl ARGS`, which has to fail with this code, and returns what it said. */
  fails(args: readonly string[], code: string, options?: RunOptions): Promise<string>;
}

/** Makes an empty data directory. Disposing kills every VM in it and removes it. */
export function useMvmctl(
  extra: NodeJS.ProcessEnv = {},
  dataDir = mkdtempSync(join(tmpdir(), "mvm-test-")),
  launcher = LAUNCHER,
): Mvmctl {
  const env = { ...process.env, NO_COLOR: "1", ...extra, MVM_DATA_DIR: dataDir };
  const start = (args: readonly string[], options: RunOptions = {}) =>
    run(process.execPath, [launcher, ...args], { timeoutMs: 180_000, ...options, env: { ...env, ...options.env } });
  const ok = async (args: readonly string[], options?: RunOptions) => {
    const result = await start(args, options);
    assert.equal(result.exitCode, 0, `mvmctl ${args.join(" ")} failed:\n${result.stderr}\n${result.stdout}`);
    return result.stdout;
  };
  return {
    dataDir,
    env,
    run: start,
    ok,
    json: async (args, options) => JSON.parse(await ok([...args, "--json"], options)),
    fails: async (args, code, options) => {
      // What follows a guest's command belongs to it.
      const result = await start(
        args[0] === "exec" ? ["exec", "--json", ...args.slice(1)] : [...args, "--json"],
        options,
      );
      assert.notEqual(result.exitCode, 0, `mvmctl ${args.join(" ")} succeeded:\n${result.stdout}`);
      const line = result.stderr.split("\n").find((text) => text.startsWith('{"error"'));
      assert.ok(line, `mvmctl ${args.join(" ")} gave no JSON error:\n${result.stderr}`);
      const { error } = JSON.parse(line) as {
        error: { code: string; message: string; hint?: string; detail?: string };
      };
      assert.equal(error.code, code, `mvmctl ${args.join(" ")}: ${error.message}`);
      return [error.message, error.detail, error.hint].filter(Boolean).join("\n");
    },
    [Symbol.dispose]: () => {
      for (const vm of findVmProcesses(dataDir)) signalProcess(vm, "SIGKILL");
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}
