import { MvmError } from "./errors.ts";

export const MiB = 1024 * 1024;

/** Bounds of what the product supports, in MiB. Below 64 MiB no current kernel boots into a healthy guest. */
export const LIMITS = {
  cpus: { min: 1, max: 64 },
  memMiB: { min: 64, max: 1024 * 1024 },
  dataDiskMiB: { min: 0, max: 16 * 1024 * 1024 },
} as const;

/** A whole number that an option takes. @throws MvmError `INVALID_SIZE` */
export function parseWhole(option: string, text: string, unit: string, bounds: { min: number; max: number }): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (value >= bounds.min && value <= bounds.max) return value;
  const why = Number.isNaN(value) ? "is not a whole number" : `is not between ${bounds.min} and ${bounds.max}`;
  throw new MvmError("INVALID_SIZE", `${option} '${text.slice(0, 40)}' ${why}`, {
    hint: `${option} takes ${unit} from ${bounds.min} to ${bounds.max}`,
  });
}

/** @throws MvmError `INVALID_SIZE` */
export const parseCpus = (text: string): number => parseWhole("--cpus", text, "a number of CPUs", LIMITS.cpus);
/** MiB. @throws MvmError `INVALID_SIZE` */
export const parseMemMiB = (text: string): number => parseWhole("--mem", text, "MiB", LIMITS.memMiB);
/** MiB, 0 for none; a file system needs at least 8. @throws MvmError `INVALID_SIZE` */
export function parseDataDiskMiB(text: string): number {
  const size = parseWhole("--data-disk", text, "MiB", LIMITS.dataDiskMiB);
  if (size === 0 || size >= 8) return size;
  throw new MvmError("INVALID_SIZE", `--data-disk ${size} is too small for a file system`, {
    hint: "--data-disk takes 0 (none) or at least 8 MiB",
  });
}

/** `1536` → `1.5 KiB`: for people, three digits at most. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  // Rounding counts: 1,048,575 bytes are 1.0 MiB, not 1024 KiB.
  while (Math.round(value) >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 || value >= 99.95 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** `1234` → `1.2 s`, `87` → `87 ms`, `75000` → `1 min 15 s`. */
export function formatMs(ms: number): string {
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}
