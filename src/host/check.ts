import { MvmError, messageOf } from "../core/errors.ts";

/** What one look at the machine found. */
export interface Check {
  /** What was looked at, for people: "KVM", "template web". */
  readonly subject: string;
  /** `failed`: the main job (build a snapshot, run it) can't be done. `warning`: it can, and something should be mended. */
  readonly state: "ok" | "warning" | "failed";
  /** What was found, in one line. */
  readonly reason: string;
  /** The command that mends it. */
  readonly mend?: string;
}

export function ok(subject: string, reason: string): Check {
  return { subject, state: "ok", reason };
}

export function warning(subject: string, reason: string, mend?: string): Check {
  return { subject, state: "warning", reason, ...(mend ? { mend } : {}) };
}

export function failed(subject: string, reason: string, mend?: string): Check {
  return { subject, state: "failed", reason, ...(mend ? { mend } : {}) };
}

/** A check that can't be made has failed, and says why; it keeps no other from being made. */
export async function guarded(subject: string, look: () => Check[] | Promise<Check[]>): Promise<Check[]> {
  try {
    return await look();
  } catch (error) {
    return [failed(subject, messageOf(error), error instanceof MvmError ? error.hint : undefined)];
  }
}
