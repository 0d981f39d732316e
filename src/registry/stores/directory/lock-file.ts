import { link, open, rename, rm, stat } from "node:fs/promises";
import { basename } from "node:path";
import { monotonicMs } from "../../../core/clock.ts";
import { isErrno, MvmError } from "../../../core/errors.ts";
import { pause } from "../pause.ts";
import type { Folder } from "./folder.ts";
import { temporaryName } from "./names.ts";

/** A holder needs milliseconds. One that has been at it for this long is dead, or its machine hangs. */
const STALE_MS = 30_000;
const STALE_CHECK_MS = 1000;
const GIVE_UP_MS = 3 * STALE_MS;

/**
 * Does `work` while no other process on any machine that mounts the directory holds the lock on `name`: a file made with O_EXCL,
 * which NFS has kept atomic since version 3. A lock left by somebody who died is broken after 30 s by the file system's clock,
 * not this machine's. `work` asks `stillHeld` right before it changes something, since a machine may stop for longer than that.
 */
export async function withLockFile<T>(
  folder: Folder,
  name: string,
  signal: AbortSignal,
  work: (stillHeld: () => Promise<boolean>) => Promise<T>,
): Promise<T> {
  const path = folder.path(`.lock-${name}`);
  const inode = await takeLock(folder, path, signal);
  const stillHeld = async () => (await inodeOf(path)) === inode;
  try {
    return await work(stillHeld);
  } finally {
    if (await stillHeld()) await rm(path, { force: true });
  }
}

async function takeLock(folder: Folder, path: string, signal: AbortSignal): Promise<bigint> {
  const since = monotonicMs();
  for (let checkStaleAt = since; ; ) {
    signal.throwIfAborted();
    try {
      const file = await open(path, "wx", 0o644);
      const { ino } = await file.stat({ bigint: true });
      await file.close();
      return ino;
    } catch (error) {
      if (!isErrno(error, "EEXIST")) throw error;
    }
    if (monotonicMs() - since > GIVE_UP_MS) {
      throw new MvmError(
        "REGISTRY_UNREACHABLE",
        `${basename(path)} in the registry has been held for ${GIVE_UP_MS / 1000} s`,
        {
          hint: "see who is pushing; remove the file if nobody is",
        },
      );
    }
    if (monotonicMs() >= checkStaleAt) {
      await breakStaleLock(folder, path);
      checkStaleAt = monotonicMs() + STALE_CHECK_MS;
    }
    await pause(5 + Math.random() * 20, signal);
  }
}

async function breakStaleLock(folder: Folder, path: string): Promise<void> {
  const lock = await stat(path, { bigint: true }).catch(ignoreMissing);
  if (!lock || Number((await fileSystemTimeMs(folder)) - lock.mtimeMs) < STALE_MS) return;
  const aside = folder.path(temporaryName());
  await rename(path, aside).catch(ignoreMissing);
  // Somebody may have broken it first, and what was moved is a new holder's: it goes back.
  const moved = await inodeOf(aside);
  if (moved !== undefined && moved !== lock.ino) await link(aside, path).catch(() => {});
  await rm(aside, { force: true });
}

/** What the file system says the time is: its server's clock may differ from ours. */
async function fileSystemTimeMs(folder: Folder): Promise<bigint> {
  const path = folder.path(temporaryName());
  const file = await open(path, "wx");
  try {
    return (await file.stat({ bigint: true })).mtimeMs;
  } finally {
    await file.close();
    await rm(path, { force: true });
  }
}

async function inodeOf(path: string): Promise<bigint | undefined> {
  return (await stat(path, { bigint: true }).catch(ignoreMissing))?.ino;
}

function ignoreMissing(error: unknown): undefined {
  if (!isErrno(error, "ENOENT")) throw error;
}
