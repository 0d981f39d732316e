import { once } from "node:events";
import { createReadStream, createWriteStream, lstatSync, symlinkSync, unlinkSync } from "node:fs";
import { chmod, lstat, mkdir, open, readdir, readlink, utimes } from "node:fs/promises";
import { basename, dirname, join, normalize, relative, resolve, sep } from "node:path";
import { pipeline } from "node:stream/promises";
import { extract, type Header, type Pack, pack } from "tar-stream";
import { fileError, isErrno, MvmError } from "../core/errors.ts";
import { type AgentClient, responseOf } from "./agent-client.ts";

/** Files into and out of a guest, as tar archives: docs/agent-api.md, "files". */

export interface PutOptions {
  /** Empty the guest's directory first. */
  readonly replace?: boolean;
  readonly signal?: AbortSignal;
}

/**
 * Copies the content of a host directory, or one file, into the guest's directory `guestPath`.
 * @param entryName the name that a single file or the directory itself gets in the guest; without it a directory's
 *   content lands in `guestPath` directly
 */
export async function putFiles(
  client: AgentClient,
  hostPath: string,
  guestPath: string,
  entryName: string | undefined,
  options: PutOptions = {},
): Promise<void> {
  const query = new URLSearchParams({ path: guestPath, ...(options.replace ? { replace: "1" } : {}) });
  const stream = client.stream("PUT", `/v1/files?${query}`, { "content-type": "application/x-tar" });
  const archive = pack();
  const answered = responseOf(stream, `copy to ${guestPath}`);
  const sent = pipeline(archive, stream, options.signal ? { signal: options.signal } : {});
  const packed = addTree(archive, hostPath, entryName ?? "", options.signal).then(
    () => archive.finalize(),
    (error: Error) => archive.destroy(error),
  );
  // The agent's refusal explains more than the broken pipe that follows it; a file that can't be read, more than both.
  const [answer, , packing] = await Promise.allSettled([answered, sent, packed]);
  stream.destroy();
  options.signal?.throwIfAborted();
  if (packing.status === "rejected") throw packing.reason;
  if (answer.status === "rejected") throw answer.reason;
}

/** A host directory as an archive, if that is no longer than `maxBytes`. */
export async function packDirectory(
  hostPath: string,
  maxBytes: number,
  signal?: AbortSignal,
): Promise<Buffer | undefined> {
  const archive = pack();
  const pieces: Buffer[] = [];
  let bytes = 0;
  archive.on("data", (piece) => {
    pieces.push(piece as Buffer);
    bytes += (piece as Buffer).length;
    if (bytes > maxBytes) archive.destroy();
  });
  const ended = once(archive, "close");
  try {
    await addTree(archive, hostPath, "", signal);
    archive.finalize();
  } catch (error) {
    if (bytes <= maxBytes) throw error;
  }
  await ended;
  return bytes > maxBytes ? undefined : Buffer.concat(pieces);
}

async function addTree(archive: Pack, hostPath: string, name: string, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  const stat = await lstat(hostPath);
  const header = { mode: stat.mode & 0o7777, mtime: stat.mtime };
  if (stat.isDirectory()) {
    if (name !== "") await addEntry(archive, { ...header, name: `${name}/`, type: "directory" });
    for (const entry of (await readdir(hostPath)).sort()) {
      await addTree(archive, join(hostPath, entry), name === "" ? entry : `${name}/${entry}`, signal);
    }
  } else if (stat.isSymbolicLink()) {
    await addEntry(archive, { ...header, name, type: "symlink", linkname: await readlink(hostPath) });
  } else if (stat.isFile()) {
    await addFile(archive, hostPath, { ...header, name, type: "file", size: stat.size });
  }
  // Sockets, devices and pipes have no meaning in another machine.
}

function addEntry(archive: Pack, header: Partial<Header> & { name: string }): Promise<void> {
  return new Promise((done, fail) => {
    archive.entry(header, (error) => (error ? fail(error) : done()));
  });
}

function addFile(
  archive: Pack,
  hostPath: string,
  header: Partial<Header> & { name: string; size: number },
): Promise<void> {
  return new Promise((done, fail) => {
    const entry = archive.entry(header, (error) => (error ? fail(error) : done()));
    // A file that grows while it is read must not spoil the archive: only what was announced is sent.
    const source = createReadStream(hostPath, header.size > 0 ? { end: header.size - 1 } : {});
    source.on("error", fail);
    // The archive ends its entry with an error when it is itself ended half-way: the agent refused, or Ctrl+C.
    entry.on("error", fail);
    entry.on("close", () => source.destroy());
    source.pipe(entry);
  });
}

/** Copies a file or a tree out of the guest. `target` is what the copied thing will be called on the host. */
export async function getFiles(
  client: AgentClient,
  guestPath: string,
  target: string,
  signal?: AbortSignal,
): Promise<void> {
  const stream = client.stream("GET", `/v1/files?${new URLSearchParams({ path: guestPath })}`);
  await responseOf(stream, `copy of ${guestPath}`);
  const archive = extract();
  const root = resolve(target);
  const top = basename(normalize(guestPath));
  const unpack = (async () => {
    const directories: { path: string; mode: number }[] = [];
    for await (const entry of archive) {
      const path = placeOf(entry.header.name, top, root);
      await unpackEntry(entry.header, entry, path, root, directories).catch((error) => {
        throw unpackFailed(error, path);
      });
    }
    // Last, so that a read-only directory can be filled first.
    for (const { path, mode } of directories.reverse()) await chmod(path, mode);
  })();
  await Promise.all([pipeline(stream, archive, signal ? { signal } : {}), unpack]);
}

/** Where an entry goes: the archive's names come from the guest, which is not trusted to stay inside. */
function placeOf(name: string, top: string, root: string): string {
  const parts = name.split("/").filter((part) => part !== "" && part !== ".");
  if (parts[0] === top) parts.shift();
  const path = resolve(root, ...parts);
  if (parts.includes("..") || (path !== root && !path.startsWith(root + sep))) {
    throw new MvmError("UNSAFE_ARCHIVE", `the guest sent a file outside of what was asked for: ${name}`);
  }
  return path;
}

async function unpackEntry(
  header: Header,
  content: AsyncIterable<unknown> & { resume(): unknown },
  path: string,
  root: string,
  directories: { path: string; mode: number }[],
): Promise<void> {
  refuseLinkedParents(path, root);
  const mode = (header.mode ?? 0o644) & 0o777;
  switch (header.type) {
    case "directory":
      removeLink(path);
      await mkdir(path, { recursive: true });
      directories.push({ path, mode });
      content.resume();
      return;
    case "symlink":
      content.resume();
      await mkdir(dirname(path), { recursive: true });
      removeLink(path);
      symlinkSync(header.linkname ?? "", path);
      return;
    case "file":
    case "contiguous-file": {
      await mkdir(dirname(path), { recursive: true });
      removeLink(path);
      const file = await open(path, "w", mode);
      await pipeline(content as AsyncIterable<Uint8Array>, createWriteStream("", { fd: file }));
      await chmod(path, mode);
      if (header.mtime) await utimes(path, header.mtime, header.mtime);
      return;
    }
    default:
      content.resume();
  }
}

/** A link that the archive made earlier must not carry a later file out of the target. */
function refuseLinkedParents(path: string, root: string): void {
  if (path === root) return;
  const steps = relative(root, dirname(path)).split(sep).filter(Boolean);
  let at = root;
  // The root too: the archive's first entry may have made it a link.
  for (const step of ["", ...steps]) {
    at = join(at, step);
    if (lstatSync(at, { throwIfNoEntry: false })?.isSymbolicLink()) {
      throw new MvmError("UNSAFE_ARCHIVE", `the guest sent a file through a symbolic link: ${path}`);
    }
  }
}

function unpackFailed(error: unknown, path: string): unknown {
  // A file system that makes no files (/proc), and a name that is too long for it.
  if (isErrno(error, "ENOENT", "ENAMETOOLONG", "EINVAL")) {
    return new MvmError("FILE_FAILED", `could not write ${path}: ${error.message}`, { cause: error });
  }
  if (error instanceof MvmError || !isErrno(error, "EEXIST")) return fileError(error, path, "write");
  return new MvmError("FILE_FAILED", `could not write ${path}: something of another kind is in its place`, {
    cause: error,
    hint: "remove it, or copy to another place",
  });
}

function removeLink(path: string): void {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink()) unlinkSync(path);
}
