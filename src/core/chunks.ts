import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import * as v from "valibot";
import { readBlocks } from "./blocks.ts";
import { sha256 } from "./digests.ts";
import { fileError } from "./errors.ts";

/**
 * Files that are shared are cut into aligned chunks of this many bytes: disk images and memory change in place and do not
 * shift. docs/decisions/0006-chunk-size.md has the measurement behind the number.
 */
export const CHUNK_BYTES = 256 * 1024;

const zeros = Buffer.alloc(CHUNK_BYTES);

/** 64 lower-case hexadecimal digits. */
export const Sha256Schema = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/, "it is not a SHA-256"));

/** The chunks of a file in order: a digest for one with content, a number for so many that hold nothing but zeros. */
export const ChunkListSchema = v.array(v.union([v.pipe(v.number(), v.integer(), v.minValue(1)), Sha256Schema]));
export type ChunkList = v.InferOutput<typeof ChunkListSchema>;

/** What a file's chunks are, and the digest of the whole of it. */
export interface FileIndex {
  /** Bytes. */
  readonly size: number;
  readonly sha256: string;
  readonly chunks: ChunkList;
}

export function chunkCount(size: number, chunkBytes = CHUNK_BYTES): number {
  return Math.ceil(size / chunkBytes);
}

/** Bytes of the chunk at a position: the last one may be shorter. */
export function chunkLength(size: number, position: number, chunkBytes = CHUNK_BYTES): number {
  return Math.min(chunkBytes, size - position * chunkBytes);
}

/** Calls back for each chunk that has content. */
export function forEachChunk<T>(chunks: readonly (T | number)[], visit: (chunk: T, position: number) => void): void {
  let position = 0;
  for (const chunk of chunks) {
    if (typeof chunk === "number") position += chunk;
    else visit(chunk, position++);
  }
}

/** How many chunks a list stands for, those of zeros included. */
export function countChunks(chunks: readonly unknown[]): number {
  return chunks.reduce<number>((sum, chunk) => sum + (typeof chunk === "number" ? chunk : 1), 0);
}

/** Adds a chunk to a list, or one more of zeros. */
export function appendChunk<T>(chunks: (T | number)[], chunk: T | undefined): void {
  const last = chunks.at(-1);
  if (chunk !== undefined) chunks.push(chunk);
  else if (typeof last === "number") chunks[chunks.length - 1] = last + 1;
  else chunks.push(1);
}

/** Whether a chunk holds nothing but zeros. */
export function isZero(bytes: Buffer): boolean {
  return bytes.equals(zeros.subarray(0, bytes.length));
}

/** Reads a file once for the digests of its chunks and of the whole. Memory stays at two blocks. @throws MvmError `FILE_FAILED` */
export async function indexFile(path: string, signal?: AbortSignal): Promise<FileIndex> {
  const whole = createHash("sha256");
  const chunks: (string | number)[] = [];
  let size = 0;
  for await (const block of readBlocks(path, signal)) {
    size += block.length;
    whole.update(block);
    for (const digest of digestsOf(block)) appendChunk(chunks, digest);
  }
  return { size, sha256: whole.digest("hex"), chunks };
}

/**
 * SHA-256 of a whole file that is known to be zeros where its list of chunks says so: those are not read. On a file full
 * of holes that saves more time than the digest takes.
 * @throws MvmError `FILE_FAILED`
 */
export async function sha256OfChunks(
  path: string,
  { size, chunks }: { readonly size: number; readonly chunks: readonly unknown[] },
  chunkBytes: number,
  signal: AbortSignal,
): Promise<string> {
  const hash = createHash("sha256");
  const file = await open(path, "r").catch((error) => {
    throw fileError(error, path, "read");
  });
  const buffer = Buffer.allocUnsafe(Math.max(chunkBytes, CHUNK_BYTES));
  let offset = 0;
  const add = async (zero: boolean) => {
    const length = Math.min(chunkBytes, size - offset);
    if (zero) for (let done = 0; done < length; done += CHUNK_BYTES) hash.update(zeros.subarray(0, length - done));
    else hash.update(buffer.subarray(0, (await file.read(buffer, 0, length, offset)).bytesRead));
    offset += length;
  };
  try {
    for (const chunk of chunks) {
      signal.throwIfAborted();
      if (typeof chunk !== "number") await add(false);
      else for (let count = 0; count < chunk; count++) await add(true);
    }
    return hash.digest("hex");
  } catch (error) {
    throw fileError(error, path, "read");
  } finally {
    await file.close();
  }
}

function* digestsOf(block: Buffer): Generator<string | undefined> {
  for (let start = 0; start < block.length; start += CHUNK_BYTES) {
    const chunk = block.subarray(start, start + CHUNK_BYTES);
    yield isZero(chunk) ? undefined : sha256(chunk);
  }
}
