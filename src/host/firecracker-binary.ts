import { join } from "node:path";
import type { Paths } from "../core/paths.ts";
import { findProgram, run } from "../core/process.ts";

/** Where `mvmctl setup` puts programs. */
export function binDirectory(paths: Paths): string {
  return join(paths.dataDir, "bin");
}

/** `MVM_FC_BIN`, or the one that `setup` installed, or the first on the PATH. */
export function findFirecracker(paths: Paths, env: NodeJS.ProcessEnv): string | undefined {
  const wanted = env["MVM_FC_BIN"];
  if (wanted) return findProgram(wanted, env);
  return findProgram(join(binDirectory(paths), "firecracker"), env) ?? findProgram("firecracker", env);
}

/** `1.16.1`, or undefined if the program does not say it as Firecracker does ("Firecracker v1.16.1"). */
export async function firecrackerVersion(binary: string, signal?: AbortSignal): Promise<string | undefined> {
  const { stdout } = await run(binary, ["--version"], { timeoutMs: 10_000, ...(signal ? { signal } : {}) });
  return /^Firecracker v(\d+\.\d+\.\d+)/m.exec(stdout)?.[1];
}
