import { join } from "node:path";
import type { Paths } from "../core/paths.ts";
import { findProgram, run } from "../core/process.ts";
import { parseFirecrackerVersion } from "./firecracker-version.ts";

/** Where `mvmctl setup` puts programs. */
export function binDirectory(paths: Pick<Paths, "dataDir">): string {
  return join(paths.dataDir, "bin");
}

/**
 * `MVM_FC_BIN`, or the one that `setup` installed, or the first on the PATH. Where `MVM_FC_VERSION` is set, one on the PATH
 * that is named as in its release (`firecracker-v1.16.1-x86_64`) is taken before them.
 */
export function findFirecracker(paths: Pick<Paths, "dataDir">, env: NodeJS.ProcessEnv): string | undefined {
  const { MVM_FC_BIN: wanted, MVM_FC_VERSION: version } = env;
  if (wanted) return findProgram(wanted, env);
  const architecture = process.arch === "arm64" ? "aarch64" : "x86_64";
  const released = version ? [`firecracker-v${version.replace(/^v/, "")}-${architecture}`] : [];
  for (const name of [...released, join(binDirectory(paths), "firecracker"), "firecracker"]) {
    const found = findProgram(name, env);
    if (found) return found;
  }
  return undefined;
}

/** `1.16.1`, or undefined if the program does not say it as Firecracker does. */
export async function firecrackerVersion(binary: string, signal?: AbortSignal): Promise<string | undefined> {
  const { stdout } = await run(binary, ["--version"], { timeoutMs: 10_000, ...(signal ? { signal } : {}) });
  return parseFirecrackerVersion(stdout);
}
