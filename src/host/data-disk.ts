import { closeSync, ftruncateSync, openSync, rmSync } from "node:fs";
import { fileError, MvmError } from "../core/errors.ts";
import { findProgram, run } from "../core/process.ts";
import { MiB } from "../core/sizes.ts";
import { lastLines } from "../core/text.ts";

/** The agent mounts the disk with this label at /mnt/data. */
const LABEL = "mvm-data";

/** Debian keeps mkfs out of an ordinary user's PATH. */
const SYSTEM_DIRECTORIES = "/usr/sbin:/sbin";

/**
 * Makes an empty ext4 disk in a sparse file.
 * @throws MvmError `PROGRAM_MISSING`, `DISK_FULL`, `DATA_DISK_FAILED`
 */
export async function createDataDisk(path: string, sizeMiB: number, signal?: AbortSignal): Promise<void> {
  const mkfs = findProgram("mkfs.ext4", { PATH: `${process.env["PATH"]}:${SYSTEM_DIRECTORIES}` });
  if (!mkfs)
    throw new MvmError("PROGRAM_MISSING", "mkfs.ext4 was not found", { hint: "install it: apt-get install e2fsprogs" });
  try {
    const fd = openSync(path, "wx", 0o644);
    ftruncateSync(fd, sizeMiB * MiB);
    closeSync(fd);
  } catch (error) {
    throw fileError(error, path, "create the data disk");
  }
  // Tables are left unwritten: the kernel fills them in later, and the file stays sparse.
  const args = ["-q", "-F", "-m", "0", "-L", LABEL, "-E", "lazy_itable_init=1,lazy_journal_init=1", path];
  const result = await run(mkfs, args, signal ? { signal } : {});
  if (result.exitCode === 0) return;
  rmSync(path, { force: true });
  throw new MvmError("DATA_DISK_FAILED", `could not make a file system in ${path}: ${lastLines(result.stderr, 1)}`);
}
