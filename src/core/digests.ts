import { createHash, hash } from "node:crypto";
import { readBlocks } from "./blocks.ts";

/** SHA-256 of a file's whole content, holes as zeros. Memory stays at two blocks. @throws MvmError `FILE_FAILED` */
export async function sha256File(path: string, signal?: AbortSignal): Promise<string> {
  const hash = createHash("sha256");
  for await (const block of readBlocks(path, signal)) hash.update(block);
  return hash.digest("hex");
}

/**
 * SHA-256 of text or bytes, as 64 hexadecimal digits. For a chunk too it is quicker here and now than beside the main thread: Web
 * Crypto copies what it digests, which takes longer than digesting.
 */
export function sha256(data: string | Uint8Array): string {
  return hash("sha256", data);
}
