import { run } from "../core/process.ts";
import { parseFirecrackerVersion } from "../hypervisor/firecracker-version.ts";

/** What `firecracker --version` says: `1.16.1`, or undefined if that is no version. */
export async function firecrackerVersion(binary: string, signal?: AbortSignal): Promise<string | undefined> {
  const { stdout } = await run(binary, ["--version"], { timeoutMs: 10_000, ...(signal ? { signal } : {}) });
  return parseFirecrackerVersion(stdout);
}
