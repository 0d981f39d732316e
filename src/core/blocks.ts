import { constants } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { allocatedBytes } from "./disk-usage.ts";
import { fileError } from "./errors.ts";
import { MiB } from "./sizes.ts";

/** Read at once: a whole number of pages, and of the blocks of every disk. */
export const BLOCK_BYTES = 4 * MiB;

/** Offsets and lengths of direct reads are multiples of the disk's block, which is 4,096 bytes at most (open(2), O_DIRECT). */
const ALIGNMENT = 4096;

/** TypeScript declares it for browsers alone. */
declare const WebAssembly: { Memory: new (size: { initial: number }) => { readonly buffer: ArrayBuffer } };
const WEBASSEMBLY_PAGE = 65_536;

interface Opened {
  readonly file: FileHandle;
  readonly direct: boolean;
  /** Two, to read ahead. */
  readonly blocks: readonly [Buffer, Buffer];
}

/**
 * The content of a file in order, holes as zeros, while the next block is read. A block is good until the one after it is asked for.
 * @throws MvmError `FILE_FAILED`, and `signal`'s reason
 */
export async function* readBlocks(path: string, signal?: AbortSignal): AsyncGenerator<Buffer, void> {
  const { file, direct, blocks } = await openForReading(path).catch((error) => {
    throw fileError(error, path, "read");
  });
  const read = (turn: number, position: number) => {
    const reading = file.read(blocks[turn]!, 0, BLOCK_BYTES, position);
    reading.catch(() => {}); // it is awaited in its turn, or nobody wants it any more
    return reading;
  };
  let position = 0;
  let reading = read(0, position);
  try {
    for (let turn = 0; ; turn = 1 - turn) {
      signal?.throwIfAborted();
      const { bytesRead } = await reading;
      if (bytesRead === 0) return;
      position += bytesRead;
      // A direct read ends within a disk's block only where the file does.
      const isLast = direct && bytesRead % ALIGNMENT !== 0;
      if (!isLast) reading = read(1 - turn, position);
      yield blocks[turn]!.subarray(0, bytesRead);
      if (isLast) return;
    }
  } catch (error) {
    throw fileError(error, path, "read");
  } finally {
    await reading.catch(() => {});
    await file.close();
  }
}

/**
 * A file with holes is read past the page cache where its file system can: the cache would be filled with the zeros of its holes
 * first, which takes three times as long as digesting them and pushes out what is needed.
 */
async function openForReading(path: string): Promise<Opened> {
  const stats = await stat(path);
  const direct = allocatedBytes(stats) < stats.size ? await openDirect(path) : undefined;
  if (direct) return direct;
  const blocks = [Buffer.allocUnsafe(BLOCK_BYTES), Buffer.allocUnsafe(BLOCK_BYTES)] as const;
  return { file: await open(path, "r"), direct: false, blocks };
}

/** Nothing where there are no direct reads: some file systems say so at once, some at the first read. */
async function openDirect(path: string): Promise<Opened | undefined> {
  let file: FileHandle | undefined;
  try {
    if (constants.O_DIRECT === undefined) return undefined;
    const blocks = [alignedBlock(), alignedBlock()] as const;
    file = await open(path, constants.O_RDONLY | constants.O_DIRECT);
    await file.read(blocks[0], 0, ALIGNMENT, 0);
    return { file, direct: true, blocks };
  } catch {
    await file?.close();
    return undefined;
  }
}

/** Direct reads want memory that begins with a page, and in JavaScript only WebAssembly's surely does. */
function alignedBlock(): Buffer {
  return Buffer.from(new WebAssembly.Memory({ initial: BLOCK_BYTES / WEBASSEMBLY_PAGE }).buffer);
}
