import { closeSync, openSync, readSync } from "node:fs";

/** Bytes of the kernel's generator (random(4)). As Node's own, for which it loads seventeen modules: every `run` feels them. */
export function randomBytes(count: number): Buffer {
  const bytes = Buffer.alloc(count);
  const device = openSync("/dev/urandom", "r");
  try {
    // Up to 256 bytes come whole, and without waiting.
    if (readSync(device, bytes, 0, count, null) !== count) throw new Error("/dev/urandom gave too little");
  } finally {
    closeSync(device);
  }
  return bytes;
}
