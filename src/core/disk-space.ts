import { statfsSync } from "node:fs";
import { MvmError } from "./errors.ts";
import { formatBytes } from "./sizes.ts";

/**
 * Refuses work that can't fit before it begins, so that it does not fail half-way.
 * @throws MvmError `DISK_FULL`
 */
export function requireSpace(directory: string, bytes: number, purpose: string): void {
  const { bavail, bsize } = statfsSync(directory);
  const free = bavail * bsize;
  if (free >= bytes) return;
  throw new MvmError(
    "DISK_FULL",
    `${purpose} needs ${formatBytes(bytes)}, and ${directory} has ${formatBytes(free)} free`,
    {
      hint: "free some space, or set MVM_DATA_DIR to a larger file system",
    },
  );
}
