import { promisify } from "node:util";
import { constants, createZstdCompress, type ZstdCompress, zstdDecompress } from "node:zlib";
import { CHUNK_BYTES } from "../core/chunks.ts";
import { sha256 as digestOf } from "../core/digests.ts";
import { MvmError } from "../core/errors.ts";

const decompress = promisify(zstdDecompress);

/**
 * zstd levels. Kernels and root images are built once and pulled often; a memory is made anew with every revision, and
 * compresses well at any level.
 */
export const LEVELS = { image: 7, memory: 1 } as const;

/** What a compressor writes into: several frames share one, so that none keeps much more than itself alive. */
const FRAMES_BYTES = 128 * 1024;

/** Compressors that wait for work, by level: to make one takes as long as to compress a chunk of memory. */
const idle = new Map<number, ZstdCompress[]>();

/** One chunk's content as a zstd frame, which says how long the content is and needs no larger window. */
export async function toFrame(chunk: Uint8Array, level: number): Promise<Buffer> {
  const ready = idle.get(level) ?? [];
  idle.set(level, ready);
  const compressor = ready.pop() ?? compressorOf(level);
  const frame = await frameOf(compressor, chunk);
  ready.push(compressor);
  return frame;
}

/** Each write to it makes a frame, as it ends one with all that it was given. */
function compressorOf(level: number): ZstdCompress {
  return createZstdCompress({
    flush: constants.ZSTD_e_end,
    chunkSize: FRAMES_BYTES,
    params: { [constants.ZSTD_c_compressionLevel]: level },
    // A frame has to fit, as it is read when it is whole. @types/node does not know that zlib's streams take it.
    ...{ readableHighWaterMark: 2 * CHUNK_BYTES },
  });
}

function frameOf(compressor: ZstdCompress, chunk: Uint8Array): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    compressor.once("error", reject);
    compressor.write(chunk, () => {
      compressor.removeListener("error", reject);
      resolve(compressor.read() as Buffer);
    });
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
  const found = digestOf(content);
  if (found !== sha256) throw damaged(`its SHA-256 is ${found} instead of ${sha256}`);
  return content;
}

/** Node calls back each time its output buffer is full: this one holds everything. Node takes 64 bytes at least. */
function outputBuffer(length: number): number {
  return Math.max(64, length);
}

function damaged(why: string, cause?: unknown): MvmError {
  return new MvmError("CHUNK_DAMAGED", why, { cause });
}
