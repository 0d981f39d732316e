import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { InstanceName } from "../core/names.ts";
import type { Paths } from "../core/paths.ts";
import { findVmProcesses, signalProcess } from "../core/process-identity.ts";
import { instanceNames, instanceStatus, RECORD } from "./records.ts";

/** As renderDocument writes it. Records are read for it unparsed: nearly always there is nothing to do. */
const STARTING = /"state": *"starting"/;

/**
 * Ends the VMs of starts that were killed before they were done: nobody waits for them, and nobody else knows them.
 * The instance stays, as a dead one. Returns the names of those that had such a VM.
 */
export function endLeftoverVms(paths: Paths): InstanceName[] {
  return instanceNames(paths)
    .filter((name) => isStarting(paths, name))
    .filter((name) => endLeftoverVm(paths, name));
}

function endLeftoverVm(paths: Paths, name: InstanceName): boolean {
  if (!isAbandonedStart(paths, name)) return false;
  const found = findVmProcesses(paths.instance(name));
  // A run may take the name over at any moment, and writes its record before it starts a VM: while the record is still the
  // dead start's, so is every process that was found before.
  if (found.length === 0 || !isAbandonedStart(paths, name)) return false;
  for (const stray of found) signalProcess(stray, "SIGKILL");
  return true;
}

/** A record that says `starting` is dead when its starter is. */
function isAbandonedStart(paths: Paths, name: InstanceName): boolean {
  const status = instanceStatus(paths, name);
  return status?.state === "dead" && status.record.state === "starting";
}

function isStarting(paths: Paths, name: InstanceName): boolean {
  try {
    return STARTING.test(readFileSync(join(paths.instance(name), RECORD), "utf8"));
  } catch {
    // Whoever needs the instance says what is wrong with it.
    return false;
  }
}
