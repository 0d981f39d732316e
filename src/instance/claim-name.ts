import { readdirSync } from "node:fs";
import { join } from "node:path";
import { MvmError } from "../core/errors.ts";
import { remove, renameUnlessTaken } from "../core/files.ts";
import { acquireLock } from "../core/locks.ts";
import type { InstanceName } from "../core/names.ts";
import type { Paths } from "../core/paths.ts";
import { makeStagingDirectory } from "../core/staging.ts";
import { requireSameDataDisk } from "./data-disk.ts";
import type { InstanceRecord } from "./record.ts";
import { DATA_DISK, instanceStatus, RECORD, writeRecord } from "./records.ts";

/** Names of ended instances are taken over one command at a time. */
const CLAIM_TIMEOUT_MS = 10_000;

/**
 * Makes the instance's directory, with its record in it, in one rename: of two runs with one name, one gets it. The
 * directory of an ended instance is taken over where it is.
 * @param endVm ends what may still run of a dead instance
 * @throws MvmError `INSTANCE_EXISTS`, `DATA_DISK_MISMATCH`
 */
export async function claimName(
  paths: Paths,
  name: InstanceName,
  record: InstanceRecord,
  endVm: (dead: InstanceRecord) => Promise<void>,
): Promise<string> {
  const target = paths.instance(name);
  using staging = makeStagingDirectory(paths.instances, name);
  writeRecord(staging.path, record);
  if (renameUnlessTaken(staging.path, target)) return target;
  await using _lock = await acquireLock(target, { purpose: `starting ${name}`, timeoutMs: CLAIM_TIMEOUT_MS });
  const status = instanceStatus(paths, name);
  // It was removed while we waited; whoever runs this name without having waited may be faster.
  if (!status && renameUnlessTaken(staging.path, target)) return target;
  if (status?.state !== "stopped" && status?.state !== "dead") throw nameInUse(name, status?.state);
  requireSameDataDisk(target, status.record, record);
  if (status.state === "dead") await endVm(status.record);
  takeOver(target, record);
  return target;
}

/**
 * Makes an ended instance's directory that of a new one; only the data disk stays. It never leaves its place and the
 * name is never free: nobody else can get either, and a kill in between leaves a dead instance that has its disk.
 */
function takeOver(directory: string, record: InstanceRecord): void {
  writeRecord(directory, record);
  for (const entry of readdirSync(directory)) {
    if (entry === RECORD || entry === DATA_DISK) continue;
    remove(join(directory, entry));
  }
}

function nameInUse(name: InstanceName, state: string | undefined): MvmError {
  if (!state)
    return new MvmError("INSTANCE_EXISTS", `the name '${name}' was just taken`, { hint: "choose another --name" });
  const toEnd = state === "broken" ? `mvmctl rm --force ${name}` : `mvmctl stop ${name}`;
  return new MvmError("INSTANCE_EXISTS", `the name '${name}' is in use: that instance is ${state}`, {
    hint: `choose another --name, or end it: ${toEnd}`,
  });
}
