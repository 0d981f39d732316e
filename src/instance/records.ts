import { existsSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { readDocument, renderDocument } from "../core/documents.ts";
import { fileError, isErrno, MvmError, messageOf } from "../core/errors.ts";
import { type InstanceName, isName } from "../core/names.ts";
import type { Paths } from "../core/paths.ts";
import { isAlive } from "../core/process-identity.ts";
import { stagingName } from "../core/staging-name.ts";
import { type InstanceRecord, InstanceRecordDocument, type InstanceStatus } from "./record.ts";
import { whyDead } from "./why-dead.ts";

export const RECORD = "instance.json";
/** The instance's disk at /mnt/data. It outlives `stop`. */
export const DATA_DISK = "data.img";

/**
 * Writes instance.json with one rename. It is not synced: after a power cut no VM runs, and what remains of the record
 * only says that.
 */
export function writeRecord(directory: string, record: InstanceRecord): void {
  writeUnsynced(directory, RECORD, record, 0o644);
}

/** Writes a document of an instance in the same way. */
export function writeUnsynced(directory: string, file: string, document: { version: number }, mode: number): void {
  const temporary = join(dirname(directory), stagingName(file));
  const path = join(directory, file);
  try {
    writeFileSync(temporary, renderDocument(document), { mode });
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw fileError(error, path, "write");
  }
}

/** An instance as its files and its process say it is now. Undefined where there is none. */
export function instanceStatus(paths: Paths, name: InstanceName): InstanceStatus | undefined {
  const directory = paths.instance(name);
  let record: InstanceRecord | undefined;
  try {
    record = readDocument(InstanceRecordDocument, join(directory, RECORD));
  } catch (error) {
    return { name, state: "broken", reason: messageOf(error) };
  }
  if (record) return { name, ...stateOf(record, directory) };
  return existsSync(directory) ? { name, state: "broken", reason: `${directory} has no ${RECORD}` } : undefined;
}

function stateOf(
  record: InstanceRecord,
  directory: string,
):
  | { state: "starting" | "running" | "paused" | "stopped"; record: InstanceRecord }
  | { state: "dead"; record: InstanceRecord; reason: string } {
  const state = record.state;
  switch (state) {
    case "stopped":
      return { state, record };
    case "starting":
      if (isAlive(record.starter)) return { state, record };
      return { state: "dead", record, reason: whyDead(record, directory) };
    case "running":
    case "paused":
      if (record.process && isAlive(record.process)) return { state, record };
      return { state: "dead", record, reason: whyDead(record, directory) };
    default:
      return state satisfies never;
  }
}

/** @throws MvmError `INSTANCE_NOT_FOUND` */
export function requireInstance(paths: Paths, name: InstanceName): InstanceStatus {
  const status = instanceStatus(paths, name);
  if (status) return status;
  throw new MvmError("INSTANCE_NOT_FOUND", `there is no instance '${name}'`, { hint: "`mvmctl ls` lists them" });
}

/** All instances, by name. */
export function readInstances(paths: Paths): InstanceStatus[] {
  return instanceNames(paths).flatMap((name) => instanceStatus(paths, name) ?? []);
}

/** Whether an instance runs, or will in a moment. */
export function isUp(status: InstanceStatus): status is Exclude<InstanceStatus, { state: "broken" }> {
  return status.state === "running" || status.state === "paused" || status.state === "starting";
}

/** The instance that has published a host port and is not ended. */
export function instanceWithPort(paths: Paths, hostPort: number): InstanceName | undefined {
  const has = (status: InstanceStatus) =>
    isUp(status) && status.record.ports.some((port) => port.hostPort === hostPort);
  return readInstances(paths).find(has)?.name as InstanceName | undefined;
}

/** Names of the directories that are instances, whole or broken, in alphabetical order. @throws MvmError `FILE_FAILED` */
export function instanceNames(paths: Paths): InstanceName[] {
  try {
    return readdirSync(paths.instances).filter(isName).sort() as InstanceName[];
  } catch (error) {
    if (isErrno(error, "ENOENT", "ENOTDIR")) return [];
    throw fileError(error, paths.instances, "read the directory");
  }
}
