import { randomUUID } from "node:crypto";
import { mkdirSync, readdirSync, rmSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileError, isErrno } from "../../core/errors.ts";
import { limaDirectory } from "./limactl.ts";

/** `MVM_LIMA` decides on this side alone. AWS's are the registry's credentials, and NO_COLOR is everybody's. */
const PASSED_VARIABLE = /^(MVM_(?!LIMA$)[A-Za-z0-9_]+|AWS_[A-Z0-9_]+|NO_COLOR)$/;

/**
 * What one call and the VM hand each other through the home directory, which both sides see: the environment, which may
 * hold secrets and so is in nobody's list of processes, and the pid that signals go to. Whoever removes the environment
 * decides: the VM, which has read it and begins, or this side, which wants the command to begin no more.
 */
export class CallFile implements Disposable {
  readonly path: string;
  /** Written by the VM before it begins. */
  readonly pidPath: string;

  private constructor(path: string) {
    this.path = path;
    this.pidPath = `${path}.pid`;
  }

  /** Writes the environment, readable by its owner alone. @throws MvmError `FILE_FAILED`, `DISK_FULL` */
  static create(env: NodeJS.ProcessEnv): CallFile {
    const directory = join(limaDirectory(env), "calls");
    const path = join(directory, `${process.pid}-${randomUUID()}`);
    try {
      mkdirSync(directory, { recursive: true, mode: 0o700 });
      removeLeftovers(directory);
      writeFileSync(path, exportLines(env), { mode: 0o600, flag: "wx" });
    } catch (error) {
      throw fileError(error, path, "write");
    }
    return new CallFile(path);
  }

  /** True if the command had not begun, and now never will. */
  withdraw(): boolean {
    try {
      unlinkSync(this.path);
      return true;
    } catch (error) {
      if (isErrno(error, "ENOENT")) return false;
      throw error;
    }
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { force: true });
    rmSync(this.pidPath, { force: true });
  }
}

/** The variables that go along, for a POSIX shell to read. */
export function exportLines(env: NodeJS.ProcessEnv): string {
  return Object.entries(env)
    .filter(([name, value]) => PASSED_VARIABLE.test(name) && value !== undefined)
    .map(([name, value]) => `export ${name}='${value!.replaceAll("'", `'\\''`)}'\n`)
    .join("");
}

/** Files of calls that were killed: their names begin with the pid. */
function removeLeftovers(directory: string): void {
  for (const name of readdirSync(directory)) {
    const pid = Number.parseInt(name, 10);
    if (pid > 0 && !isRunning(pid)) rmSync(join(directory, name), { force: true });
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return !isErrno(error, "ESRCH");
  }
}
