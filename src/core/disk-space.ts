import { statfsSync } from "node:fs";
import { fileError, MvmError } from "./errors.ts";
import { formatBytes } from "./sizes.ts";

/**
 * Refuses work that can't fit before it begins, so that it does not fail half-way.
 * @throws MvmError `DISK_FULL`, `FILE_FAILED`
 */
export function requireSpace(directory: string, bytes: number, purpose: string): void {
  const free = freeBytes(directory);
  if (free >= bytes) return;
  throw new MvmError(
    "DISK_FULL",
    `${purpose} needs ${formatBytes(bytes)}, and ${directory} has ${formatBytes(free)} free`,
    {
      hint: "free some space, or set MVM_DATA_DIR to a larger file system",
    },
  );
}

function freeBytes(directory: string): number {
  try {
    const { bavail, bsize } = statfsSync(directory);
    return bavail * bsize;
  } catch (error) {
    throw fileError(error, directory, "look at the free space of");
  }
}
