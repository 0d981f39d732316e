import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { CHUNK_BYTES, chunkLength, type FileIndex, forEachChunk } from "../core/chunks.ts";
import type { Context } from "../core/context.ts";
import { sha256 as digestOf } from "../core/digests.ts";
import { fileError, MvmError } from "../core/errors.ts";
import { mapOrdered } from "../core/parallel.ts";
import { MiB } from "../core/sizes.ts";
import type { ChunkIndex } from "../template/chunk-index.ts";
import type { FileDigest } from "../template/revision.ts";
import type { BlobWriter } from "./blob-writer.ts";
import { toFrame } from "./frames.ts";
import type { ChunkPlace, KnownChunks } from "./known-chunks.ts";
import type { RemoteChunk, RemoteFile } from "./records.ts";
import type { TransferTotals } from "./transfer.ts";

/** Chunks that are read, checked and compressed at once: Node compresses on four threads. Each takes a compressor, which it takes long to make. */
const PARALLEL = 6;

/** Files of one directory, with what their chunks are. */
export interface FilesToPush {
  readonly directory: string;
  readonly digests: readonly FileDigest[];
  readonly index: ChunkIndex;
  /** A zstd level. */
  readonly level: number;
}

/** Counts what a push of these files is about, before anything is read. */
export function countFiles(parts: readonly FilesToPush[], known: KnownChunks, totals: TransferTotals): void {
  const seen = new Set<string>();
  for (const { digests, index } of parts) {
    for (const { file, size } of digests) {
      totals.logical += size;
      let content = 0;
      forEachChunk(index[file]!.chunks, (sha256: string, position) => {
        const bytes = chunkLength(size, position);
        content += bytes;
        if (known.has(sha256) || seen.has(sha256)) totals.reused += bytes;
        seen.add(sha256);
      });
      totals.zero += size - content;
    }
  }
}

/** Sends the chunks of these files that the registry does not have, and adds them to `known`. */
export async function pushNewChunks(
  ctx: Context,
  { directory, digests, index, level }: FilesToPush,
  known: KnownChunks,
  writer: BlobWriter,
  totals: TransferTotals,
  onProgress: () => void,
): Promise<void> {
  for (const { file, size } of digests) {
    const path = join(directory, file);
    const wanted = newChunks(index[file]!, known);
    if (wanted.length === 0) continue;
    const handle = await open(path, "r").catch((error) => {
      throw fileError(error, path, "read");
    });
    // Read into again and again: collecting a buffer for each chunk would take as long as compressing it.
    const buffers: Buffer[] = [];
    try {
      const toSend = mapOrdered(wanted, PARALLEL, async ({ sha256, position }) => {
        ctx.signal.throwIfAborted();
        const buffer = buffers.pop() ?? Buffer.allocUnsafeSlow(CHUNK_BYTES);
        const content = buffer.subarray(0, chunkLength(size, position));
        await readChunk(handle, path, position, content, sha256);
        const frame = await toFrame(content, level);
        buffers.push(buffer);
        return { sha256, bytes: content.length, frame };
      });
      for await (const { sha256, bytes, frame } of toSend) {
        known.set(sha256, await writer.add(sha256, frame));
        totals.new += bytes;
        totals.transferred += frame.length;
        onProgress();
      }
    } finally {
      await handle.close();
    }
  }
}

function newChunks(index: FileIndex, known: KnownChunks): { sha256: string; position: number }[] {
  const found = new Map<string, number>();
  forEachChunk(index.chunks, (sha256: string, position) => {
    if (!known.has(sha256) && !found.has(sha256)) found.set(sha256, position);
  });
  return [...found].map(([sha256, position]) => ({ sha256, position }));
}

/** Fills `content` with a chunk, which must still be what it was when the file was made. */
async function readChunk(
  file: FileHandle,
  path: string,
  position: number,
  content: Buffer,
  sha256: string,
): Promise<void> {
  const { bytesRead } = await file.read(content, 0, content.length, position * CHUNK_BYTES);
  if (bytesRead === content.length && digestOf(content) === sha256) return;
  throw new MvmError("ARTIFACT_DAMAGED", `${path} is not what was built: its chunk ${position} was altered`, {
    hint: "mvmctl template verify NAME shows all damage; build it again with --force",
  });
}

/** Where a chunk is, for `describeFiles`. */
export type PlaceOf = (sha256: string) => ChunkPlace;

/** Stands for the place of a chunk that is not sent yet, and takes as many bytes in a record. */
export const PLACE_TO_COME: ChunkPlace = { blob: "0".repeat(64), offset: 16 * MiB, length: CHUNK_BYTES };

/** Files as a record describes them, and the blobs that their chunks are in. */
export function describeFiles(
  { digests, index }: FilesToPush,
  placeOf: PlaceOf,
): { blobs: string[]; files: RemoteFile[] } {
  const blobs = new Map<string, number>();
  const indexOf = (blob: string) => {
    const found = blobs.get(blob) ?? blobs.size;
    blobs.set(blob, found);
    return found;
  };
  const place = (sha256: string): RemoteChunk => {
    const { blob, offset, length } = placeOf(sha256);
    return [sha256, indexOf(blob), offset, length];
  };
  const files = digests.map(({ file, size, sha256 }) => ({
    file,
    size,
    sha256,
    chunks: index[file]!.chunks.map((chunk) => (typeof chunk === "number" ? chunk : place(chunk))),
  }));
  return { blobs: [...blobs.keys()], files };
}
