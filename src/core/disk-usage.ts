import { lstatSync, readdirSync, type Stats } from "node:fs";
import { join } from "node:path";
import { fileError, isErrno } from "./errors.ts";

/** Bytes that a file takes on the disk: less than its size where it has holes. */
export function allocatedBytes({ blocks }: Pick<Stats, "blocks">): number {
  return blocks * 512; // st_blocks counts 512-byte units, whatever the file system (stat(2))
}

/**
 * Bytes that a tree takes on the disk: holes take nothing, and a file with several names counts once, also between calls
 * that share `seen`. What vanishes while it is looked at, or may not be read, counts as nothing.
 */
export function diskUsage(path: string, seen: Set<string> = new Set()): number {
  const stat = statIfThere(path);
  if (!stat) return 0;
  const key = `${stat.dev}:${stat.ino}`;
  if (seen.has(key)) return 0;
  if (stat.nlink > 1 && !stat.isDirectory()) seen.add(key);
  const own = allocatedBytes(stat);
  if (!stat.isDirectory()) return own;
  return namesIn(path).reduce((sum, name) => sum + diskUsage(join(path, name), seen), own);
}

function statIfThere(path: string): Stats | undefined {
  return unlessGone(path, () => lstatSync(path));
}

function namesIn(path: string): string[] {
  return unlessGone(path, () => readdirSync(path)) ?? [];
}

function unlessGone<T>(path: string, look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    if (isErrno(error, "ENOENT", "ENOTDIR", "EACCES", "EPERM")) return undefined;
    throw fileError(error, path, "look at");
  }
}
