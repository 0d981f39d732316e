import { closeSync, copyFileSync, mkdirSync, openSync, readSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileError, isErrno, MvmError } from "../core/errors.ts";
import { findProgram, run } from "../core/process.ts";
import { HYPERVISOR_LOG, type SnapshotFiles, type VmConfig } from "./driver.ts";
import { type Bind, INSIDE } from "./firecracker-namespace.ts";

/** The files of a Firecracker VM, in its directory and around it. */

/** The directory of a VM that Firecracker sees: its sockets. */
export const RUN = "run";
/** Where its root is made, in a mount namespace; empty for everybody else. */
export const ROOT = "root";

/** Looking for zeros in a memory of 32 GiB. */
const DIG_TIMEOUT_MS = 120_000;

/** What Firecracker writes, in the VM's directory. */
export function makeOwnFiles(directory: string): string[] {
  const paths = [join(directory, RUN), join(directory, HYPERVISOR_LOG)] as const;
  try {
    for (const name of [RUN, ROOT]) mkdirSync(join(directory, name), { recursive: true });
  } catch (error) {
    throw fileError(error, directory, "create the directory");
  }
  makeEmpty(paths[1]);
  return [...paths];
}

export function ownBinds(directory: string): Bind[] {
  return [
    { from: join(directory, RUN), at: "/run", writable: true },
    { from: join(directory, HYPERVISOR_LOG), at: INSIDE.log, writable: true },
  ];
}

export function deviceBinds(config: VmConfig): Bind[] {
  const devices = config.network ? ["/dev/kvm", "/dev/net/tun"] : ["/dev/kvm"];
  return devices.map((path) => ({ from: path, at: path, writable: true }));
}

export function makeEmpty(path: string): void {
  try {
    closeSync(openSync(path, "w", 0o644));
  } catch (error) {
    throw fileError(error, path, "create");
  }
}

/** Firecracker before its version after 1.16 boots uncompressed kernels only, and says little when it gets another. */
export function requireElf(kernel: string): void {
  const magic = Buffer.alloc(4);
  try {
    const fd = openSync(kernel, "r");
    try {
      readSync(fd, magic);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw fileError(error, kernel, "read");
  }
  if (magic.equals(Buffer.from("\x7fELF", "latin1"))) return;
  throw new MvmError("KERNEL_UNSUPPORTED", `Firecracker boots no compressed kernel, and ${kernel} is no ELF file`, {
    hint: "let the image have a vmlinux instead of a bzImage (mkGuest does), or choose --hypervisor qemu",
  });
}

export function move(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if (!isErrno(error, "EXDEV")) throw fileError(error, to, "write");
    copyFileSync(from, to);
    rmSync(from);
  }
}

/** Firecracker writes pages of zeros too; a file system keeps them as holes. Without fallocate(1) the file is only larger. */
export async function digHoles({ memory }: SnapshotFiles, env: NodeJS.ProcessEnv): Promise<void> {
  if (!findProgram("fallocate", env)) return;
  await run("fallocate", ["--dig-holes", memory], { timeoutMs: DIG_TIMEOUT_MS });
}
