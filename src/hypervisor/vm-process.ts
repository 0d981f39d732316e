import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileError, MvmError } from "../core/errors.ts";
import { remove } from "../core/files.ts";
import { findProgram, spawnChecked } from "../core/process.ts";
import {
  findVmProcesses,
  identify,
  isAlive,
  type ProcessIdentity,
  signalProcess,
  VM_DIRECTORY_VARIABLE,
} from "../core/process-identity.ts";
import { lastLines } from "../core/text.ts";
import { CONSOLE_LOG, HYPERVISOR_LOG, type StartOptions, type VmNetwork, type VmRef } from "./driver.ts";
import { panicOn } from "./guest-panic.ts";

/** What the processes of all hypervisors have in common: how they are started, found, ended. */

const KILL_TIMEOUT_MS = 5000;
/** From closing its sockets to the end of a hypervisor's process. */
export const ENDING_MS = 500;

export interface VmProcess {
  /** The VM's directory: the working directory, and what the process is found by. */
  readonly directory: string;
  readonly command: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  /** Takes standard output and standard error: a name in `directory`. */
  readonly log: string;
  /** Opened for reading, it is the process's file descriptor 3. */
  readonly input?: string | undefined;
  /** An open file that is its standard input; nothing otherwise. */
  readonly stdin?: number | undefined;
  /** Names in `directory` that an earlier VM left, and that must be gone. */
  readonly sockets: readonly string[];
  readonly installHint: string;
  readonly onStarted?: StartOptions["onStarted"];
  /** Why a process ended before it could be identified. */
  readonly explainEnd: (directory: string) => MvmError;
}

/** Starts a hypervisor in the background. @throws MvmError `PROGRAM_MISSING`, `VM_DIED`, `FILE_FAILED` */
export async function startVmProcess(start: VmProcess): Promise<VmRef> {
  const { directory, env } = start;
  // Those of a VM that was killed here a moment ago may still take connections, and drop them.
  for (const socket of start.sockets) remove(join(directory, socket));
  const log = openForVm(join(directory, start.log), "a");
  const input = start.input === undefined ? undefined : openForVm(start.input, "r");
  const [program = "", ...args] = start.command;
  try {
    const child = await spawnChecked(
      program,
      args,
      {
        cwd: directory,
        // Nothing of the caller's environment reaches the hypervisor, so that no secret of it can end up in a VM's files.
        env: { PATH: env["PATH"], LANG: "C.UTF-8", [VM_DIRECTORY_VARIABLE]: directory },
        detached: true,
        stdio: [start.stdin ?? "ignore", log, log, ...(input === undefined ? [] : [input])],
      },
      start.installHint,
    );
    child.unref();
    const identity = identify(child.pid!);
    if (!identity) throw start.explainEnd(directory);
    const vm = { directory, process: identity };
    start.onStarted?.(vm);
    return vm;
  } finally {
    letGo(log);
    if (input !== undefined) letGo(input);
  }
}

/** What a hypervisor is started through to be in its VM's own network. */
export function networkPrefix({ prefix, netns }: VmNetwork): readonly string[] {
  return prefix ?? ["nsenter", `--net=${netns}`, "--"];
}

/** What a hypervisor is started through to end with its parent; nothing where that was not asked for or can't be had. */
export function parentDeathPrefix(options: StartOptions, env: NodeJS.ProcessEnv): string[] {
  return options.dieWithParent && findProgram("setpriv", env) ? ["setpriv", "--pdeathsig", "KILL", "--"] : [];
}

/** Whether the process ends now: its sockets close before it does. */
export async function hasEnded(vm: VmRef): Promise<boolean> {
  const deadline = Date.now() + ENDING_MS;
  while (isAlive(vm.process)) {
    if (Date.now() > deadline) return false;
    await delay(5);
  }
  return true;
}

/** Ends a VM's hypervisor, recorded or not. @throws MvmError `VM_KILL_FAILED` */
export async function killVm(vm: { directory: string; process?: ProcessIdentity | undefined }): Promise<void> {
  const deadline = Date.now() + KILL_TIMEOUT_MS;
  const found = findVmProcesses(vm.directory);
  for (const process of vm.process ? [vm.process, ...found] : found) {
    signalProcess(process, "SIGKILL");
    while (isAlive(process)) {
      if (Date.now() > deadline) {
        throw new MvmError("VM_KILL_FAILED", `the hypervisor (process ${process.pid}) does not end`, {
          hint: "it may wait for a disk that hangs: look at `dmesg`",
        });
      }
      await delay(5);
    }
  }
}

function openForVm(path: string, flags: "a" | "r"): number {
  try {
    return openSync(path, flags, 0o644);
  } catch (error) {
    throw fileError(error, path, "open");
  }
}

/** The hypervisor has its own of this file: whether ours could be closed makes no difference to it. */
function letGo(fd: number): void {
  try {
    closeSync(fd);
  } catch {
    // it is closed all the same (close(2))
  }
}

/** The error for a VM that ended by itself, from what it left in its logs. */
export function vmDied(directory: string, cause?: unknown): MvmError {
  const console = readLog(join(directory, CONSOLE_LOG));
  const panic = panicOn(console);
  const why = panic?.outOfMemory ? "the guest ran out of memory" : panic && `its kernel panicked: ${panic.reason}`;
  const said = [lastLines(readLog(join(directory, HYPERVISOR_LOG)), 5), panic?.lines ?? lastLines(console, 15)];
  return new MvmError("VM_DIED", `the VM ended by itself${why ? `: ${why}` : ""}`, {
    detail: said.filter(Boolean).join("\n") || "it left no message",
    hint: panic?.outOfMemory ? "give it more: --mem MiB" : "if the guest ran out of memory, give it more with --mem",
    cause,
  });
}

/** A log, as far as there is one. */
export function readLog(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
