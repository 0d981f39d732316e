import { promisify } from "node:util";
import { constants, zstdCompress, zstdDecompress } from "node:zlib";
import { digestAside } from "../core/chunks.ts";
import { MvmError } from "../core/errors.ts";

const compress = promisify(zstdCompress);
const decompress = promisify(zstdDecompress);

/**
 * zstd levels. Kernels and root images are built once and pulled often; a memory is made anew with every revision, and
 * compresses well at any level.
 */
export const LEVELS = { image: 7, memory: 1 } as const;

/** One chunk's content as a zstd frame, which says how long the content is and needs no larger window. */
export function toFrame(chunk: Uint8Array, level: number): Promise<Buffer> {
  return compress(chunk, {
    pledgedSrcSize: chunk.length,
    chunkSize: outputBuffer(chunk.length / 4),
    params: { [constants.ZSTD_c_compressionLevel]: level },
  });
}

/**
 * The content of a frame, which must have this length and this digest. What a frame says of itself is not believed: it is
 * stopped at the chunk's length, and its window may not be larger than the chunk.
 * @throws MvmError `CHUNK_DAMAGED`
 */
export async function fromFrame(frame: Uint8Array, length: number, sha256: string): Promise<Buffer> {
  const windowLog = Math.max(10, Math.ceil(Math.log2(length)));
  let content: Buffer;
  try {
    content = await decompress(frame, {
      maxOutputLength: length,
      chunkSize: outputBuffer(length),
      params: { [constants.ZSTD_d_windowLogMax]: windowLog },
    });
  } catch (error) {
    throw damaged(`it is no zstd frame of ${length} bytes`, error);
  }
  if (content.length !== length) throw damaged(`it has ${content.length} bytes instead of ${length}`);
  const found = await digestAside(content);
  if (found !== sha256) throw damaged(`its SHA-256 is ${found} instead of ${sha256}`);
  return content;
}

/**
 * Node calls back each time its output buffer is full, and the result keeps the whole of the last one alive. So decompressing
 * has one that holds everything, and compressing one that holds what is usual. Node takes 64 bytes at least.
 */
function outputBuffer(length: number): number {
  return Math.max(64, Math.ceil(length));
}

function damaged(why: string, cause?: unknown): MvmError {
  return new MvmError("CHUNK_DAMAGED", why, { cause });
}
