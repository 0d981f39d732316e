import { createHash, randomUUID } from "node:crypto";
import { constants, mkdirSync, type Stats } from "node:fs";
import { type FileHandle, link, lstat, open, readdir, rename, rm, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileError, isErrno, MvmError } from "../../core/errors.ts";
import { acquireLock } from "../../core/locks.ts";
import type { ObjectInfo, PutOptions, Store, StoredObject } from "../store.ts";

/** Parts of a key: no way up, nothing hidden, nothing absolute. */
const KEY = /^[A-Za-z0-9_-][A-Za-z0-9._-]*(\/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$/;
/** Objects that are being written begin like this, and are no objects yet. */
const TEMPORARY = ".writing-";
/** One that nobody finished in this time is removed by the next list of its directory. */
const ABANDONED_MS = 24 * 60 * 60 * 1000;
const LOCK_WAIT_MS = 30_000;

/**
 * A registry in a directory: each object is a file, written beside its place and renamed. Conditional writes are exact
 * between processes of one machine; between machines that share the directory over a network, "only if absent" is exact
 * (link(2) is atomic there too), and "only if unchanged" can be overtaken within the moment of the rename.
 */
export class DirectoryStore implements Store {
  readonly description: string;
  readonly identity: string;
  readonly #root: string;

  /** @param root absolute path; made with the first write */
  constructor(root: string) {
    this.#root = root;
    this.description = root;
    this.identity = `file://${root}`;
  }

  async get(key: string, maxBytes: number): Promise<StoredObject | undefined> {
    const file = await this.#open(key);
    if (!file) return undefined;
    try {
      const { size } = await file.stat();
      if (size > maxBytes) {
        throw new MvmError("REGISTRY_OBJECT_TOO_LARGE", `${key} has ${size} bytes, and ${maxBytes} is the most`, {
          hint: "it is not what its name says; push the template again",
        });
      }
      const bytes = await readExactly(file, 0, size);
      return { bytes, etag: etagOf(bytes) };
    } finally {
      await file.close();
    }
  }

  async getRange(key: string, offset: number, length: number): Promise<Buffer> {
    const file = await this.#open(key);
    if (!file) {
      throw new MvmError("REGISTRY_OBJECT_MISSING", `${key} is not in ${this.description}`, {
        hint: "push the template again from a machine that has it whole",
      });
    }
    try {
      const bytes = await readExactly(file, offset, length);
      if (bytes.length === length) return bytes;
      throw new MvmError("REGISTRY_SHORT_READ", `${key} ends before byte ${offset + length}`, {
        hint: "push the template again from a machine that has it whole",
      });
    } finally {
      await file.close();
    }
  }

  async put(key: string, body: Uint8Array, { condition }: PutOptions, signal: AbortSignal): Promise<{ etag: string }> {
    const path = this.#path(key);
    const temporary = join(dirname(path), `${TEMPORARY}${randomUUID()}`);
    try {
      mkdirSync(dirname(path), { recursive: true });
      await writeWhole(temporary, body);
      if (!condition) await rename(temporary, path);
      else if ("ifAbsent" in condition) await link(temporary, path);
      else await this.#replace(key, temporary, condition.ifMatch, signal);
      await syncDirectory(dirname(path));
      return { etag: etagOf(body) };
    } catch (error) {
      if (isErrno(error, "EEXIST")) throw conflict(key);
      throw fileError(error, path, "write");
    } finally {
      await rm(temporary, { force: true });
    }
  }

  async #replace(key: string, temporary: string, etag: string, signal: AbortSignal): Promise<void> {
    const path = this.#path(key);
    await using _lock = await acquireLock(path, { purpose: `writing ${key}`, timeoutMs: LOCK_WAIT_MS, signal });
    const now = await this.get(key, Number.MAX_SAFE_INTEGER);
    if (now?.etag !== etag) throw conflict(key);
    await rename(temporary, path);
  }

  async head(key: string): Promise<ObjectInfo | undefined> {
    const stat = await lstatIfThere(this.#path(key));
    return stat?.isFile() ? infoOf(key, stat) : undefined;
  }

  async delete(key: string): Promise<void> {
    const path = this.#path(key);
    try {
      await unlink(path);
    } catch (error) {
      if (!isErrno(error, "ENOENT", "ENOTDIR")) throw fileError(error, path, "remove");
    }
  }

  async *list(prefix: string, signal: AbortSignal): AsyncIterable<ObjectInfo> {
    const directory = prefix.slice(0, prefix.lastIndexOf("/") + 1);
    yield* this.#walk(directory, prefix, signal);
  }

  async *#walk(directory: string, prefix: string, signal: AbortSignal): AsyncIterable<ObjectInfo> {
    signal.throwIfAborted();
    for (const name of await namesIn(join(this.#root, directory))) {
      const key = `${directory}${name}`;
      const stat = await lstatIfThere(join(this.#root, key));
      if (name.startsWith(TEMPORARY)) await this.#removeAbandoned(key, stat);
      else if (stat?.isDirectory() && (`${key}/`.startsWith(prefix) || prefix.startsWith(`${key}/`)))
        yield* this.#walk(`${key}/`, prefix, signal);
      else if (stat?.isFile() && key.startsWith(prefix) && KEY.test(key)) yield infoOf(key, stat);
    }
  }

  async #removeAbandoned(key: string, stat: Stats | undefined): Promise<void> {
    if (stat && Date.now() - stat.mtimeMs > ABANDONED_MS) await rm(join(this.#root, key), { force: true });
  }

  #path(key: string): string {
    if (KEY.test(key) && key.length <= 1024) return join(this.#root, key);
    throw new Error(`'${key}' is not a registry key`);
  }

  /** Opens an object. What is no regular file (a link, a pipe) is none. */
  async #open(key: string): Promise<FileHandle | undefined> {
    const path = this.#path(key);
    const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
    try {
      const file = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
      if ((await file.stat()).isFile()) return file;
      await file.close();
      return undefined;
    } catch (error) {
      if (isErrno(error, "ENOENT", "ENOTDIR", "ELOOP", "ENXIO")) return undefined;
      throw fileError(error, path, "read");
    }
  }
}

function conflict(key: string): MvmError {
  return new MvmError("REGISTRY_CONFLICT", `${key} was changed by somebody else meanwhile`, { hint: "try again" });
}

function etagOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function infoOf(key: string, stat: Stats): ObjectInfo {
  return { key, size: stat.size, modifiedMs: stat.mtimeMs };
}

async function readExactly(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await file.read(bytes, done, length - done, offset + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return bytes.subarray(0, done);
}

async function writeWhole(path: string, body: Uint8Array): Promise<void> {
  const file = await open(path, "wx", 0o644);
  try {
    await file.writeFile(body);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

async function namesIn(path: string): Promise<string[]> {
  try {
    return (await readdir(path)).sort();
  } catch (error) {
    if (isErrno(error, "ENOENT", "ENOTDIR")) return [];
    throw fileError(error, path, "read the directory");
  }
}

async function lstatIfThere(path: string): Promise<Stats | undefined> {
  try {
    return await lstat(path);
  } catch (error) {
    if (isErrno(error, "ENOENT", "ENOTDIR")) return undefined;
    throw fileError(error, path, "read");
  }
}
