import { MvmError } from "../../core/errors.ts";

/** What every store says in the same words. `where` is the store's description. */

export function objectTooLarge(where: string, key: string, maxBytes: number): MvmError {
  return new MvmError(
    "REGISTRY_OBJECT_TOO_LARGE",
    `${key} in ${where} has more than the ${maxBytes} bytes that such an object may have`,
    { hint: "it was not written by mvmctl, or is damaged: push again what it belongs to" },
  );
}

export function objectMissing(where: string, key: string): MvmError {
  return new MvmError("REGISTRY_OBJECT_MISSING", `${key} is missing in ${where}`, {
    hint: "it was deleted, or never arrived: push again what it belongs to",
  });
}

export function objectTooShort(where: string, key: string, offset: number, length: number): MvmError {
  return new MvmError(
    "REGISTRY_SHORT_READ",
    `${key} in ${where} has no ${length} bytes at ${offset}: it is too short`,
    {
      hint: "it is damaged: push again what it belongs to",
    },
  );
}

export function conflict(where: string, key: string): MvmError {
  return new MvmError("REGISTRY_CONFLICT", `${key} in ${where} was changed by somebody else in the meantime`, {
    hint: "look at what is there now, and try again",
  });
}
