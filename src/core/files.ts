import {
  chmodSync,
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileError, isErrno, MvmError } from "./errors.ts";
import { stagingName } from "./staging-name.ts";

/**
 * Small files are read and written synchronously: thousands of parallel asynchronous reads of small files are several
 * times slower in Node, and one write with its syncs takes less than a millisecond.
 */

/** The mode of what is shared and never written again: clones map a snapshot's memory and read the rest. */
export const READ_ONLY = 0o444;

function temporaryBeside(path: string): string {
  return join(dirname(path), stagingName(basename(path)));
}

/**
 * Makes what was written in a directory (new names, renames) survive a power cut.
 * @throws MvmError `DISK_FULL`, `FILE_FAILED`
 */
export function syncDirectory(path: string): void {
  try {
    const fd = openSync(path, "r");
    try {
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw fileError(error, path, "write");
  }
}

/** Flushes one file's data to the disk. */
export function syncFile(path: string): void {
  syncDirectory(path);
}

/**
 * Writes a whole file so that a reader, a crash or a power cut sees the old content or the new: temporary file, fsync,
 * rename, fsync of the directory.
 * @throws MvmError `DISK_FULL`, `FILE_FAILED`
 */
export function writeFileAtomic(path: string, data: string | Uint8Array, options: { mode?: number } = {}): void {
  const temporary = temporaryBeside(path);
  try {
    const fd = openSync(temporary, "wx", options.mode ?? 0o644);
    try {
      const bytes = typeof data === "string" ? Buffer.from(data) : data;
      for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(temporary, path);
    syncDirectory(dirname(path));
  } catch (error) {
    rmSync(temporary, { force: true });
    throw fileError(error, path, "write");
  }
}

/** Points a symbolic link at `target` with one atomic rename, whether or not it was there before. */
export function replaceSymlink(path: string, target: string): void {
  const temporary = temporaryBeside(path);
  try {
    symlinkSync(target, temporary);
    renameSync(temporary, path);
    syncDirectory(dirname(path));
  } catch (error) {
    rmSync(temporary, { force: true });
    throw fileError(error, path, "write");
  }
}

/** Removes a file or a whole directory; that it is not there is no error. @throws MvmError `FILE_FAILED` */
export function remove(path: string): void {
  try {
    rmSync(path, { recursive: true, force: true });
  } catch (error) {
    throw fileError(error, path, "remove");
  }
}

/** Nobody writes it from here on, not even its owner by accident. @throws MvmError `FILE_FAILED` */
export function makeReadOnly(path: string): void {
  changeMode(path, READ_ONLY);
}

/** @throws MvmError `FILE_FAILED` */
export function changeMode(path: string, mode: number): void {
  try {
    chmodSync(path, mode);
  } catch (error) {
    throw fileError(error, path, "write");
  }
}

/** The text of a file, or undefined where there is none. */
export function readTextIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (isErrno(error, "ENOENT", "ENOTDIR")) return undefined;
    throw fileError(error, path, "read");
  }
}

/**
 * Like `mkdir -p`. (Node's own never returns where the file system has no such directory and makes none, as /proc.)
 * @throws MvmError `DISK_FULL`, `FILE_FAILED`
 */
export function ensureDirectory(path: string, mode = 0o755): void {
  try {
    makeWithParents(path, mode);
  } catch (error) {
    throw fileError(error, path, "create the directory");
  }
}

function makeWithParents(path: string, mode: number): void {
  if (makeUnlessThere(path, mode)) return;
  const parent = dirname(path);
  if (parent !== path) makeWithParents(parent, mode);
  if (!makeUnlessThere(path, mode)) throw noDirectoryHere(path);
}

/** False if the parent is missing. */
function makeUnlessThere(path: string, mode: number): boolean {
  try {
    mkdirSync(path, { mode });
    return true;
  } catch (error) {
    if (isErrno(error, "ENOENT")) return false;
    if (isErrno(error, "EEXIST", "EROFS", "EISDIR", "EACCES", "EPERM") && isDirectory(path)) return true;
    throw error;
  }
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

function noDirectoryHere(path: string): MvmError {
  return new MvmError("FILE_FAILED", `could not create the directory ${path}: its file system makes none`, {
    hint: "set MVM_DATA_DIR to a directory of yours",
  });
}

/**
 * Publishes a directory under its name: of several that want it, one gets it. False where one with content is there already.
 * @throws MvmError `FILE_FAILED`
 */
export function renameUnlessTaken(from: string, to: string): boolean {
  try {
    renameSync(from, to);
    return true;
  } catch (error) {
    if (isErrno(error, "ENOTEMPTY", "EEXIST")) return false;
    throw fileError(error, to, "create");
  }
}
