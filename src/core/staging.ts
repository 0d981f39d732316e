import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { fileError, isErrno, MvmError } from "./errors.ts";
import { ensureDirectory, remove } from "./files.ts";
import { findVmProcesses, signalProcess } from "./process-identity.ts";
import { isAbandoned, STAGING_PREFIX, stagingName } from "./staging-name.ts";

export interface StagingDirectory extends Disposable {
  readonly path: string;
}

/**
 * Makes a staging directory in `parent`. Disposing removes it, unless it was renamed away; what can't be removed is left to the
 * next command, and fails nothing.
 */
export function makeStagingDirectory(parent: string, label: string): StagingDirectory {
  ensureDirectory(parent);
  const path = join(parent, stagingName(label));
  try {
    mkdirSync(path);
  } catch (error) {
    throw fileError(error, path, "create the directory");
  }
  return {
    path,
    [Symbol.dispose]: () => {
      try {
        remove(path);
      } catch (error) {
        if (!(error instanceof MvmError)) throw error;
      }
    },
  };
}

/**
 * Removes staging entries whose makers are dead, and kills the VMs they left running in them.
 * Returns the paths that were removed.
 */
export function sweepStaging(parent: string): string[] {
  let names: string[];
  try {
    names = readdirSync(parent).filter((name) => name.startsWith(STAGING_PREFIX));
  } catch (error) {
    if (isErrno(error, "ENOENT", "ENOTDIR")) return [];
    throw fileError(error, parent, "read the directory");
  }
  const removed: string[] = [];
  for (const name of names) {
    if (!isAbandoned(name)) continue;
    const path = join(parent, name);
    for (const stray of findVmProcesses(path)) signalProcess(stray, "SIGKILL");
    remove(path);
    removed.push(path);
  }
  return removed;
}
