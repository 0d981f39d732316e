import { createHash, hash } from "node:crypto";
import { statSync } from "node:fs";
import { open } from "node:fs/promises";
import { fileError } from "./errors.ts";
import { MiB } from "./sizes.ts";

const BLOCK_BYTES = 4 * MiB;

/** SHA-256 of a file's whole content, holes read as zeros. Reads ahead while it hashes; memory stays at two blocks. */
export async function sha256File(path: string, signal?: AbortSignal): Promise<string> {
  const hash = createHash("sha256");
  const file = await open(path, "r").catch((error) => {
    throw fileError(error, path, "read");
  });
  try {
    const blocks = [Buffer.allocUnsafe(BLOCK_BYTES), Buffer.allocUnsafe(BLOCK_BYTES)] as const;
    let turn = 0;
    let reading = file.read(blocks[0], 0, BLOCK_BYTES);
    for (;;) {
      signal?.throwIfAborted();
      const { bytesRead } = await reading;
      if (bytesRead === 0) return hash.digest("hex");
      const block = blocks[turn]!;
      turn = 1 - turn;
      reading = file.read(blocks[turn]!, 0, BLOCK_BYTES);
      hash.update(block.subarray(0, bytesRead));
    }
  } catch (error) {
    throw fileError(error, path, "read");
  } finally {
    await file.close();
  }
}

/**
 * SHA-256 of text or bytes, as 64 hexadecimal digits. For a chunk too it is quicker here and now than beside the main thread: Web
 * Crypto copies what it digests, which takes longer than digesting.
 */
export function sha256(data: string | Uint8Array): string {
  return hash("sha256", data);
}

/** Bytes that a file takes on the disk: less than its size where it has holes. */
export function allocatedBytes(path: string): number {
  return statSync(path).blocks * 512; // st_blocks counts 512-byte units, whatever the file system (stat(2))
}
