import { closeSync, openSync, readSync } from "node:fs";
import { fileError } from "./errors.ts";

const DEVICE = "/dev/urandom";

/**
 * Bytes of the kernel's generator (random(4)). As Node's own, for which it loads seventeen modules: every `run` feels them.
 * @throws MvmError `FILE_FAILED`
 */
export function randomBytes(count: number): Buffer {
  const bytes = Buffer.alloc(count);
  try {
    const device = openSync(DEVICE, "r");
    try {
      // Up to 256 bytes come whole, and without waiting.
      if (readSync(device, bytes, 0, count, null) !== count) throw new Error(`${DEVICE} gave too little`);
    } finally {
      closeSync(device);
    }
  } catch (error) {
    throw fileError(error, DEVICE, "read");
  }
  return bytes;
}
