import { readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { fileError, isErrno } from "../core/errors.ts";
import type { Paths } from "../core/paths.ts";
import { findVmProcesses, vmDirectoryOf } from "../core/process-identity.ts";
import { sweepStaging } from "../core/staging.ts";
import { STAGING_PREFIX } from "../core/staging-name.ts";
import { type Check, ok, warning } from "../host/check.ts";
import { endLeftoverVms } from "./leftover-vms.ts";
import type { InstanceStatus } from "./record.ts";
import { readInstances } from "./records.ts";

/**
 * Instances that are damaged or dead, VMs that nobody knows, and what killed commands left half-made or running, which is
 * removed.
 */
export function checkInstances(paths: Paths): Check[] {
  const removed = sweepBelow(paths.dataDir);
  const leftovers = removed.length > 0 ? [ok("leftovers", `removed ${removed.length} of killed commands`)] : [];
  const ended = endLeftoverVms(paths);
  if (ended.length > 0) leftovers.push(ok("leftovers", `ended the VM that a killed run left of ${ended.join(", ")}`));
  const statuses = readInstances(paths);
  const wrong = [...statuses.flatMap(checkStatus), ...strangers(paths, statuses)];
  if (wrong.length > 0) return [...leftovers, ...wrong];
  return [...leftovers, ok("instances", statuses.length === 0 ? "none" : `${statuses.length}, none of them dead`)];
}

function checkStatus(status: InstanceStatus): Check[] {
  const subject = `instance ${status.name}`;
  if (status.state === "broken") return [warning(subject, status.reason, `mvmctl rm ${status.name} --force`)];
  if (status.state !== "dead") return [];
  const mend = `mvmctl start ${status.name}, or mvmctl rm ${status.name}; mvmctl logs ${status.name} --console shows more`;
  return [warning(subject, `dead: ${status.reason}`, mend)];
}

/** Hypervisors of this data directory whose instance is gone: somebody removed its files by hand. */
function strangers(paths: Paths, known: readonly InstanceStatus[]): Check[] {
  const directories = new Set(known.map(({ name }) => join(paths.instances, name)));
  return findVmProcesses(paths.dataDir).flatMap(({ pid }) => {
    const directory = vmDirectoryOf(pid);
    if (directory === undefined || directories.has(directory) || directory.includes(`/${STAGING_PREFIX}`)) return [];
    return [warning(`process ${pid}`, `a VM of ${basename(directory)}, which is no instance any more`, `kill ${pid}`)];
  });
}

/** Staging entries lie beside what they become, at most this many levels down: templates/NAME/revisions/ID/snapshots/KEY. */
const DEPTH = 6;

/** Removes the staging entries of dead processes everywhere in the data directory. Returns their paths. */
function sweepBelow(directory: string, depth = DEPTH): string[] {
  const here = sweepStaging(directory);
  if (depth === 0) return here;
  return [...here, ...subdirectories(directory).flatMap((path) => sweepBelow(path, depth - 1))];
}

function subdirectories(directory: string): string[] {
  try {
    return readdirSync(directory, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && !entry.name.startsWith(STAGING_PREFIX))
      .map(({ name }) => join(directory, name));
  } catch (error) {
    if (isErrno(error, "ENOENT", "ENOTDIR")) return [];
    throw fileError(error, directory, "read the directory");
  }
}
