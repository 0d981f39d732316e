import { randomBytes } from "node:crypto";

/** Keys begin with a letter or a digit, so no key is ever taken for one of these. */
const TEMPORARY = /^\.tmp-[0-9a-f]{32}$/;

/** A name for a file that is being written. It says nothing of its process, which may run on another machine. */
export function temporaryName(): string {
  return `.tmp-${randomBytes(16).toString("hex")}`;
}

export function isTemporaryName(name: string): boolean {
  return TEMPORARY.test(name);
}
