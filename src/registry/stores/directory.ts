import { createHash } from "node:crypto";
import { type FileHandle, link, lstat, open, readdir, rename, rm } from "node:fs/promises";
import { sha256 } from "../../core/digests.ts";
import { isErrno } from "../../core/errors.ts";
import { MiB } from "../../core/sizes.ts";
import type { ObjectInfo, PutOptions, Store, StoredObject } from "../store.ts";
import { directoryFailure, unsafePath } from "./directory/failure.ts";
import { type Folder, openFolder, openPlainFile } from "./directory/folder.ts";
import { withLockFile } from "./directory/lock-file.ts";
import { isTemporaryName, temporaryName } from "./directory/names.ts";
import { conflict, objectMissing, objectTooLarge, objectTooShort } from "./failures.ts";
import { checkKey, checkKeyPrefix, isKey } from "./keys.ts";

/** A file that was being written a day ago is not being written any more. */
const ABANDONED_MS = 24 * 3600 * 1000;

/**
 * A registry in a directory, on a disk of this machine or one that machines share: `file:///srv/templates`.
 *
 * Each object is a file, written under another name, synced, and renamed. "Only if there is none" is link(2), which one process on
 * one machine wins, over NFS too. "Only if it is still this one" compares under a lock file. An etag is the content's SHA-256, so
 * it does not depend on a clock.
 *
 * What a shared disk has to keep: rename, link and O_EXCL must be atomic (they are on local file systems and NFS 3 and newer),
 * and another machine's rename must be seen when a file is opened (NFS's close-to-open consistency).
 */
export class DirectoryStore implements Store {
  readonly description: string;
  readonly identity: string;
  readonly #root: string;

  /** @param root absolute path of a directory, which has to be there: an unmounted disk must not be filled by mistake */
  constructor(root: string) {
    this.#root = root;
    this.description = root;
    this.identity = `file://${root}`;
  }

  get(key: string, maxBytes: number, signal: AbortSignal): Promise<StoredObject | undefined> {
    return this.#withFile(key, signal, async (file) => {
      const { size } = await file.stat();
      if (size > maxBytes) throw objectTooLarge(this.description, key, maxBytes);
      const bytes = Buffer.allocUnsafe(size);
      if ((await readFully(file, bytes, 0, signal)) < size) throw objectTooShort(this.description, key, 0, size);
      return { bytes, etag: sha256(bytes) };
    });
  }

  async getRange(key: string, offset: number, length: number, signal: AbortSignal): Promise<Buffer> {
    const bytes = await this.#withFile(key, signal, async (file) => {
      // Asked first, so that a wrong length from somewhere reserves no memory.
      if ((await file.stat()).size < offset + length) throw objectTooShort(this.description, key, offset, length);
      const range = Buffer.allocUnsafe(length);
      if ((await readFully(file, range, offset, signal)) < length)
        throw objectTooShort(this.description, key, offset, length);
      return range;
    });
    if (!bytes) throw objectMissing(this.description, key);
    return bytes;
  }

  async put(
    key: string,
    body: Uint8Array,
    options: PutOptions,
    signal: AbortSignal,
  ): Promise<{ readonly etag: string }> {
    const { condition } = options;
    const name = nameOf(key);
    await this.#withFolder(key, true, `write ${key}`, signal, async (folder) => {
      const temporary = folder.path(temporaryName());
      try {
        await writeNew(temporary, body, signal);
        if (!condition) await rename(temporary, folder.path(name));
        else if ("ifAbsent" in condition) await this.#publishFirst(folder, temporary, key, signal);
        else await this.#publishInstead(folder, temporary, key, condition.ifMatch, signal);
        await folder.sync();
      } finally {
        await rm(temporary, { force: true });
      }
    });
    return { etag: options.sha256 ?? sha256(body) };
  }

  async #publishFirst(folder: Folder, temporary: string, key: string, signal: AbortSignal): Promise<void> {
    const path = folder.path(nameOf(key));
    try {
      await link(temporary, path);
    } catch (error) {
      if (isErrno(error, "EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS")) {
        await this.#publishFirstWithoutLinks(folder, temporary, key, signal);
        return;
      }
      if (!isErrno(error, "EEXIST")) throw error;
      // An NFS server that is asked twice, since its first answer was lost, says EEXIST to who made the link.
      if ((await lstat(temporary)).nlink < 2) throw conflict(this.description, key);
    }
  }

  /** For file systems that have no hard links, as FAT and some shares. */
  #publishFirstWithoutLinks(folder: Folder, temporary: string, key: string, signal: AbortSignal): Promise<void> {
    const name = nameOf(key);
    return withLockFile(folder, name, signal, async (stillHeld) => {
      const there = await lstat(folder.path(name)).catch(ignoreMissing);
      if (there || !(await stillHeld())) throw conflict(this.description, key);
      await rename(temporary, folder.path(name));
    });
  }

  #publishInstead(folder: Folder, temporary: string, key: string, etag: string, signal: AbortSignal): Promise<void> {
    const name = nameOf(key);
    return withLockFile(folder, name, signal, async (stillHeld) => {
      const current = await etagOf(folder, name, signal);
      if (current !== etag || !(await stillHeld())) throw conflict(this.description, key);
      await rename(temporary, folder.path(name));
    });
  }

  head(key: string, signal: AbortSignal): Promise<ObjectInfo | undefined> {
    return this.#withFolder(key, false, `look at ${key}`, signal, async (folder) => {
      const stats = await lstat(folder.path(nameOf(key))).catch(ignoreMissing);
      if (stats && !stats.isFile()) throw unsafePath(nameOf(key), "a plain file");
      return stats && { key, size: stats.size, modifiedMs: stats.mtimeMs };
    });
  }

  async delete(key: string, signal: AbortSignal): Promise<void> {
    await this.#withFolder(key, false, `delete ${key}`, signal, async (folder) => {
      await rm(folder.path(nameOf(key)), { force: true });
      await folder.sync();
    });
  }

  /** Also removes what somebody began to write a day ago and never finished. */
  async *list(prefix: string, signal: AbortSignal): AsyncIterable<ObjectInfo> {
    checkKeyPrefix(prefix);
    try {
      yield* this.#walk([], prefix, signal);
    } catch (error) {
      throw directoryFailure(error, this.#root, `list ${prefix || "everything"}`);
    }
  }

  async *#walk(segments: readonly string[], prefix: string, signal: AbortSignal): AsyncIterable<ObjectInfo> {
    signal.throwIfAborted();
    await using folder = await openFolder(this.#root, segments, false);
    if (!folder) return;
    const entries = (await readdir(folder.path(), { withFileTypes: true }))
      .filter((entry) => entry.isDirectory() || entry.isFile())
      .map((entry) => ({ name: entry.name, directory: entry.isDirectory() }));
    for (const { name } of entries) if (isTemporaryName(name)) await removeAbandoned(folder.path(name));
    const found = entries
      .map(({ name, directory }) => ({ name, key: [...segments, name].join("/"), directory }))
      .filter(({ key }) => isKey(key))
      .map((entry) => (entry.directory ? { ...entry, key: `${entry.key}/` } : entry))
      .filter(({ key, directory }) => key.startsWith(prefix) || (directory && prefix.startsWith(key)))
      .sort((a, b) => (a.key < b.key ? -1 : 1));
    for (const { name, key, directory } of found) {
      signal.throwIfAborted();
      if (directory) yield* this.#walk([...segments, name], prefix, signal);
      else {
        const stats = await lstat(folder.path(name)).catch(ignoreMissing);
        if (stats?.isFile()) yield { key, size: stats.size, modifiedMs: stats.mtimeMs };
      }
    }
  }

  #withFile<T>(key: string, signal: AbortSignal, work: (file: FileHandle) => Promise<T>): Promise<T | undefined> {
    return this.#withFolder(key, false, `read ${key}`, signal, async (folder) => {
      await using file = await openPlainFile(folder, nameOf(key));
      return file && (await work(file));
    });
  }

  /** Does `work` in the directory of a key. Undefined where there is no such directory, and none is made. */
  async #withFolder<T>(
    key: string,
    create: boolean,
    doing: string,
    signal: AbortSignal,
    work: (folder: Folder) => Promise<T>,
  ): Promise<T | undefined> {
    checkKey(key);
    signal.throwIfAborted();
    try {
      await using folder = await openFolder(this.#root, key.split("/").slice(0, -1), create);
      return folder && (await work(folder));
    } catch (error) {
      throw directoryFailure(error, this.#root, doing);
    }
  }
}

function nameOf(key: string): string {
  return key.slice(key.lastIndexOf("/") + 1);
}

async function writeNew(path: string, body: Uint8Array, signal: AbortSignal): Promise<void> {
  await using file = await open(path, "wx", 0o644);
  for (let done = 0; done < body.length; ) {
    signal.throwIfAborted();
    done += (await file.write(body, done, Math.min(8 * MiB, body.length - done))).bytesWritten;
  }
  await file.sync();
}

/** Fills `target` from `offset` of a file, and says how many bytes there were. */
async function readFully(file: FileHandle, target: Buffer, offset: number, signal: AbortSignal): Promise<number> {
  let done = 0;
  while (done < target.length) {
    signal.throwIfAborted();
    const { bytesRead } = await file.read(target, done, Math.min(8 * MiB, target.length - done), offset + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done;
}

async function etagOf(folder: Folder, name: string, signal: AbortSignal): Promise<string | undefined> {
  await using file = await openPlainFile(folder, name);
  if (!file) return undefined;
  const hash = createHash("sha256");
  const block = Buffer.allocUnsafe(MiB);
  for (let offset = 0; ; ) {
    const count = await readFully(file, block, offset, signal);
    if (count === 0) return hash.digest("hex");
    hash.update(block.subarray(0, count));
    offset += count;
  }
}

async function removeAbandoned(path: string): Promise<void> {
  const stats = await lstat(path).catch(ignoreMissing);
  if (!stats || Date.now() - stats.mtimeMs < ABANDONED_MS) return;
  await rm(path, { force: true }).catch(() => {}); // who may only read can't tidy up
}

function ignoreMissing(error: unknown): undefined {
  if (!isErrno(error, "ENOENT")) throw error;
}
