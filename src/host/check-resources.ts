import { existsSync, readFileSync, statfsSync } from "node:fs";
import { dirname } from "node:path";
import { formatBytes, MiB } from "../core/sizes.ts";
import { makeStagingDirectory } from "../core/staging.ts";
import { type Check, failed, ok, warning } from "./check.ts";

const GiB = 1024 * MiB;

/** The template defaults ask for 1 GiB of memory, and the smallest example runs in 256 MiB. */
const MEMORY = { enough: GiB, least: 256 * MiB };
/** An image with a snapshot takes some 0.3 to 1 GiB; building one keeps as much in the Nix store. */
const DISK = { enough: 5 * GiB, least: 512 * MiB };

export function checkMemory(): Check[] {
  const available = availableMemory(readFileSync("/proc/meminfo", "utf8"));
  if (available === undefined) return [warning("memory", "/proc/meminfo does not say how much is available")];
  return [judge("memory", available, MEMORY, "available", "stop what is not needed: mvmctl stop --all")];
}

/** Bytes, from /proc/meminfo (proc(5)). */
export function availableMemory(meminfo: string): number | undefined {
  const kiB = /^MemAvailable:\s*(\d+) kB$/m.exec(meminfo)?.[1];
  return kiB === undefined ? undefined : Number(kiB) * 1024;
}

/** Space where templates and where Nix's builds go. */
export function checkDisk(dataDir: string): Check[] {
  const places = [["disk", dataDir] as const, ["disk of the Nix store", "/nix"] as const];
  return places.flatMap(([subject, path]) => {
    const there = nearestThere(path);
    if (path === "/nix" && there !== path) return [];
    const { bavail, bsize } = statfsSync(there);
    const mend = path === "/nix" ? "nix-collect-garbage" : "mvmctl status shows what takes how much";
    return [judge(subject, bavail * bsize, DISK, `free for ${path}`, mend)];
  });
}

function nearestThere(path: string): string {
  return existsSync(path) || path === "/" ? path : nearestThere(dirname(path));
}

/** Compares bytes with what a template of ordinary size needs. */
export function judge(
  subject: string,
  bytes: number,
  bounds: { readonly enough: number; readonly least: number },
  what: string,
  mend: string,
): Check {
  const found = `${formatBytes(bytes)} ${what}`;
  if (bytes >= bounds.enough) return ok(subject, found);
  const wanted = `${found}; a template of ordinary size wants ${formatBytes(bounds.enough)}`;
  return bytes >= bounds.least ? warning(subject, wanted, mend) : failed(subject, wanted, mend);
}

/** The data directory can be written: by writing to it. @throws MvmError `FILE_FAILED`, `DISK_FULL` */
export function checkDataDirectory(dataDir: string): Check[] {
  using _probe = makeStagingDirectory(dataDir, "doctor");
  return [ok("data directory", `${dataDir} can be written`)];
}
