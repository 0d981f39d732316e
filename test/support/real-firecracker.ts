import { mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findProgram, run, spawnChecked } from "../../src/core/process.ts";
import { parseFirecrackerVersion } from "../../src/hypervisor/firecracker-version.ts";

/** The machine's Firecracker: MVM_FC_BIN, or the one on the PATH. */
export function findFirecracker(): string | undefined {
  const found = findProgram(process.env["MVM_FC_BIN"] || "firecracker", process.env);
  return found && realpathSync(found);
}

export async function versionOf(binary: string): Promise<string> {
  return parseFirecrackerVersion((await run(binary, ["--version"])).stdout) ?? "";
}

export interface RealFirecracker extends AsyncDisposable {
  readonly socket: string;
  readonly directory: string;
  readonly version: string;
}

/** A Firecracker that was told nothing yet. Its configuration can be tried without a guest. */
export async function startRealFirecracker(binary: string): Promise<RealFirecracker> {
  const directory = mkdtempSync(join(tmpdir(), "mvm-fc-"));
  const socket = join(directory, "api.sock");
  const version = await versionOf(binary);
  const child = await spawnChecked(binary, ["--api-sock", socket], { stdio: "ignore" });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  return {
    socket,
    directory,
    version,
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGKILL");
      await ended;
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
