import { MvmError } from "../../src/core/errors.ts";

/** For assert.rejects: true for an MvmError with this code; anything else fails the test as it is. */
export function isMvmError(code: string): (error: unknown) => boolean {
  return (error) => {
    if (error instanceof MvmError && error.code === code) return true;
    throw error;
  };
}
