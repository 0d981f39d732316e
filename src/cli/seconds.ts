import { UsageError } from "./errors.ts";

/** A number of seconds, in milliseconds. */
export function parseSeconds(option: string, text: string): number {
  const seconds = /^\d{1,6}(\.\d{1,3})?$/.test(text) ? Number(text) : Number.NaN;
  if (seconds > 0) return seconds * 1000;
  throw new UsageError(`${option} '${text}' is not a number of seconds`, `write ${option} 60`);
}
