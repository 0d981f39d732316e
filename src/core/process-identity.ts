import { readdirSync, readFileSync } from "node:fs";
import * as v from "valibot";
import { fileError, isErrno } from "./errors.ts";

/**
 * A process for good: a pid alone is reused, and after a reboot every pid belongs to somebody else.
 * `startTime` is field 22 of /proc/PID/stat (clock ticks since boot; proc(5)).
 */
export const ProcessIdentitySchema = v.object({
  pid: v.pipe(v.number(), v.integer(), v.minValue(1)),
  startTime: v.string(),
  bootId: v.string(),
});
export type ProcessIdentity = v.InferOutput<typeof ProcessIdentitySchema>;

let cachedBootId: string | undefined;
/** This boot of the machine: /proc/sys/kernel/random/boot_id. */
export function bootId(): string {
  cachedBootId ??= readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  return cachedBootId;
}

/** State letter and start time of a process, or undefined if there is none. */
function statOf(pid: number): { state: string; startTime: string } | undefined {
  const stat = readOf(pid, "stat");
  if (stat === undefined) return undefined;
  // The command name is in parentheses and may hold spaces and parentheses itself: count from the last one.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return { state: fields[0] ?? "", startTime: fields[19] ?? "" };
}

/**
 * A file of /proc/PID, or undefined if that process is gone or somebody else's. Where we have too many files open to look,
 * every process would be dead, and what it makes would be swept away.
 * @throws MvmError `FILE_FAILED`
 */
function readOf(pid: number, file: string): string | undefined {
  const path = `/proc/${pid}/${file}`;
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (isErrno(error, "EMFILE", "ENFILE")) throw fileError(error, path, "read");
    return undefined;
  }
}

/** The identity of a process that runs now, or undefined. */
export function identify(pid: number): ProcessIdentity | undefined {
  const stat = statOf(pid);
  return stat && { pid, startTime: stat.startTime, bootId: bootId() };
}

let cachedSelf: ProcessIdentity | undefined;
export function ownIdentity(): ProcessIdentity {
  cachedSelf ??= identify(process.pid)!;
  return cachedSelf;
}

/** True while exactly this process runs; a zombie does not. */
export function isAlive(identity: ProcessIdentity): boolean {
  if (identity.bootId !== bootId()) return false;
  const stat = statOf(identity.pid);
  return stat !== undefined && stat.startTime === identity.startTime && stat.state !== "Z" && stat.state !== "X";
}

/** Sends a signal if exactly this process still runs; says whether it was sent. */
export function signalProcess(identity: ProcessIdentity, signal: NodeJS.Signals): boolean {
  if (!isAlive(identity)) return false;
  try {
    return process.kill(identity.pid, signal);
  } catch {
    return false;
  }
}

/** Every hypervisor is started with this in its environment; see findVmProcesses. */
export const VM_DIRECTORY_VARIABLE = "MVM_VM_DIRECTORY";

/**
 * Hypervisors whose VM lives in `directory` or below it. A VM that was started and not yet recorded when its starter died is found this
 * way: the environment of a process is readable in /proc and, unlike its arguments, nobody else's mentions it by chance.
 */
export function findVmProcesses(directory: string): ProcessIdentity[] {
  const found: ProcessIdentity[] = [];
  for (const entry of readdirSync("/proc")) {
    const pid = Number(entry);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    const theirs = vmDirectoryOf(pid);
    if (theirs !== directory && !theirs?.startsWith(`${directory}/`)) continue;
    const identity = identify(pid);
    if (identity) found.push(identity);
  }
  return found;
}

/** The directory of the VM that a process is the hypervisor of, or undefined. */
export function vmDirectoryOf(pid: number): string | undefined {
  const mark = `${VM_DIRECTORY_VARIABLE}=`;
  const variables = readOf(pid, "environ")?.split("\0");
  return variables?.find((variable) => variable.startsWith(mark))?.slice(mark.length);
}
