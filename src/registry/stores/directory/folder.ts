import { constants } from "node:fs";
import { type FileHandle, mkdir, open } from "node:fs/promises";
import { isErrno } from "../../../core/errors.ts";
import { unsafePath } from "./failure.ts";

/**
 * An open directory of a registry. What is in it is reached through the open descriptor (proc(5), /proc/PID/fd), as openat(2)
 * would: whoever may write to a shared directory can't lead us elsewhere by swapping a directory for a symbolic link.
 */
export class Folder implements AsyncDisposable {
  readonly #handle: FileHandle;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  /** The path of a name in this directory, or of the directory itself. Good until it is disposed. */
  path(name = "."): string {
    return `/proc/self/fd/${this.#handle.fd}/${name}`;
  }

  /** Makes names that were added or replaced survive a power cut. */
  sync(): Promise<void> {
    return this.#handle.sync();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close();
  }
}

/** Opens the directory `segments` below `root`, or returns undefined where there is none and `create` is false. */
export async function openFolder(
  root: string,
  segments: readonly string[],
  create: boolean,
): Promise<Folder | undefined> {
  // The root is the user's own choice, and may be a symbolic link.
  let folder = new Folder(await open(root, constants.O_RDONLY | constants.O_DIRECTORY));
  for (const segment of segments) {
    await using parent = folder;
    const child = await openChild(parent, segment, create);
    if (!child) return undefined;
    folder = child;
  }
  return folder;
}

async function openChild(parent: Folder, name: string, create: boolean): Promise<Folder | undefined> {
  try {
    const flags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
    return new Folder(await open(parent.path(name), flags));
  } catch (error) {
    if (isErrno(error, "ENOTDIR", "ELOOP")) throw unsafePath(name, "a directory");
    if (!isErrno(error, "ENOENT")) throw error;
  }
  if (!create) return undefined;
  await mkdir(parent.path(name)).catch((error) => {
    if (!isErrno(error, "EEXIST")) throw error; // somebody else was quicker
  });
  await parent.sync();
  return openChild(parent, name, false);
}

/** Opens a plain file to read, or returns undefined where there is none. Links, FIFOs and devices are refused, not followed. */
export async function openPlainFile(folder: Folder, name: string): Promise<FileHandle | undefined> {
  let file: FileHandle;
  try {
    // Without O_NONBLOCK, opening a FIFO would wait for a writer.
    file = await open(folder.path(name), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (isErrno(error, "ENOENT")) return undefined;
    if (isErrno(error, "ELOOP", "ENXIO")) throw unsafePath(name, "a plain file");
    throw error;
  }
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw unsafePath(name, "a plain file");
}
