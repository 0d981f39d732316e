import { bootId, isAlive, ownIdentity } from "./process-identity.ts";

/**
 * Everything is made in a staging entry and published with one rename. A staging entry's name says which process made
 * it, so that the leftovers of a killed command are known and removed by the next one.
 */
export const STAGING_PREFIX = ".staging-";
const PATTERN = /^\.staging-(\d+)-(\d+)-([0-9a-f]{8})-/;

let names = 0;

/** A name for a temporary file or directory of this process; `label` is for people who look. */
export function stagingName(label: string): string {
  const self = ownIdentity();
  const unique = (names++).toString(16).padStart(8, "0");
  return `${STAGING_PREFIX}${self.pid}-${self.startTime}-${bootId().slice(0, 8)}-${unique}-${label.slice(0, 64)}`;
}

/** True for a staging entry whose maker no longer runs. */
export function isAbandoned(name: string): boolean {
  const match = PATTERN.exec(name);
  if (!match) return false;
  const [, pid, startTime, boot] = match;
  if (boot !== bootId().slice(0, 8)) return true;
  return !isAlive({ pid: Number(pid), startTime: startTime!, bootId: bootId() });
}
