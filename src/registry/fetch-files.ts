import type { FileHandle } from "node:fs/promises";
import { chunkLength, forEachChunk } from "../core/chunks.ts";
import type { Context } from "../core/context.ts";
import { sha256 as digestOf } from "../core/digests.ts";
import { isErrno, MvmError, messageOf } from "../core/errors.ts";
import { forEachParallel } from "../core/parallel.ts";
import { fromFrame } from "./frames.ts";
import { blobKey } from "./keys.ts";
import type { LocalChunks } from "./local-chunks.ts";
import type { ContentRecord, RemoteChunk, RemoteFile } from "./records.ts";
import { dataRuns, writeAll, writeSparse } from "./sparse-file.ts";
import type { Store } from "./store.ts";
import type { TransferTotals } from "./transfer.ts";

/** A file to be filled. */
export interface FileToFetch {
  readonly record: ContentRecord;
  readonly file: RemoteFile;
  readonly handle: FileHandle;
  /** Whether something may be in the file already: what is right is kept, what is wrong is written over. */
  readonly begun: boolean;
}

export interface FetchContext {
  readonly ctx: Context;
  readonly store: Store;
  readonly local: LocalChunks;
  readonly totals: TransferTotals;
  readonly onProgress: () => void;
}

/** Ranges that are fetched at once, and chunks that are copied from this machine at once. */
const PARALLEL_RANGES = 4;
const PARALLEL_COPIES = 8;
/** Frames side by side are fetched with one request of at most this many bytes; a small gap costs less than a request. */
const RANGE_BYTES = 2 * 1024 * 1024;
const GAP_BYTES = 64 * 1024;

/** A place in a file that wants a chunk. */
interface Target {
  readonly to: FileToFetch;
  readonly position: number;
}

/** A chunk, where it is in the registry, and everywhere it belongs. */
interface Wanted {
  readonly sha256: string;
  readonly blob: string;
  readonly offset: number;
  readonly length: number;
  /** Bytes of its content. */
  readonly size: number;
  readonly targets: Target[];
}

/**
 * Fills files with the chunks that their records name: from this machine where it has them, from the registry otherwise.
 * Every chunk is checked before it is written.
 * @throws MvmError `CHUNK_DAMAGED` naming file, chunk and digests, `DISK_FULL`, `REGISTRY_…`
 */
export async function fetchFiles(fetch: FetchContext, files: readonly FileToFetch[]): Promise<void> {
  const wanted = new Map<string, Wanted>();
  for (const to of files) {
    if (to.begun) await clearZeros(fetch, to);
    await want(fetch, to, wanted);
  }
  const missing: Wanted[] = [];
  await forEachParallel(wanted.values(), PARALLEL_COPIES, async (chunk) => {
    fetch.ctx.signal.throwIfAborted();
    const content = await fetch.local.read(chunk.sha256);
    if (content?.length === chunk.size) {
      await deliver(chunk, content);
      fetch.totals.reused += chunk.size * chunk.targets.length;
      fetch.onProgress();
    } else missing.push(chunk);
  });
  await forEachParallel(rangesOf(missing), PARALLEL_RANGES, (range) => fetchRange(fetch, range));
}

/** Notes the chunks a file lacks. */
async function want({ ctx, totals }: FetchContext, to: FileToFetch, wanted: Map<string, Wanted>): Promise<void> {
  const { file, record } = to;
  const targets: { chunk: RemoteChunk; position: number }[] = [];
  forEachChunk(file.chunks, (chunk: RemoteChunk, position) => targets.push({ chunk, position }));
  let content = 0;
  await forEachParallel(targets, PARALLEL_COPIES, async ({ chunk, position }) => {
    ctx.signal.throwIfAborted();
    const [sha256, blob, offset, length] = chunk;
    const size = chunkLength(file.size, position, record.chunkBytes);
    content += size;
    if (to.begun && (await isThere(to, position, size, sha256))) {
      totals.reused += size;
      return;
    }
    const known = wanted.get(sha256);
    if (known) known.targets.push({ to, position });
    else wanted.set(sha256, { sha256, blob: record.blobs[blob]!, offset, length, size, targets: [{ to, position }] });
  });
  totals.logical += file.size;
  totals.zero += file.size - content;
}

/** Writes zeros where a file that was begun has something else although its record has zeros. */
async function clearZeros({ ctx }: FetchContext, { file, record, handle }: FileToFetch): Promise<void> {
  const buffer = Buffer.allocUnsafe(record.chunkBytes);
  let position = 0;
  for (const chunk of file.chunks) {
    const end = position + (typeof chunk === "number" ? chunk : 1);
    for (; typeof chunk === "number" && position < end; position++) {
      ctx.signal.throwIfAborted();
      const size = chunkLength(file.size, position, record.chunkBytes);
      const found = buffer.subarray(0, size);
      await handle.read(found, 0, size, position * record.chunkBytes);
      if (dataRuns(found).length > 0) await writeAll(handle, Buffer.alloc(size), position * record.chunkBytes);
    }
    position = end;
  }
}

async function isThere(
  { handle, record }: FileToFetch,
  position: number,
  size: number,
  sha256: string,
): Promise<boolean> {
  const content = Buffer.allocUnsafe(size);
  const { bytesRead } = await handle.read(content, 0, size, position * record.chunkBytes);
  return bytesRead === size && digestOf(content) === sha256;
}

interface Range {
  readonly blob: string;
  readonly offset: number;
  length: number;
  readonly chunks: Wanted[];
}

function rangesOf(missing: Wanted[]): Range[] {
  const ranges: Range[] = [];
  const sorted = missing.sort((a, b) => (a.blob === b.blob ? a.offset - b.offset : a.blob < b.blob ? -1 : 1));
  for (const chunk of sorted) {
    const range = ranges.at(-1);
    const end = chunk.offset + chunk.length;
    const near = range?.blob === chunk.blob && chunk.offset <= range.offset + range.length + GAP_BYTES;
    if (range && near && end - range.offset <= RANGE_BYTES) {
      range.length = Math.max(range.length, end - range.offset);
      range.chunks.push(chunk);
    } else ranges.push({ blob: chunk.blob, offset: chunk.offset, length: chunk.length, chunks: [chunk] });
  }
  return ranges;
}

async function fetchRange(fetch: FetchContext, { blob, offset, length, chunks }: Range): Promise<void> {
  const { ctx, store, totals } = fetch;
  ctx.signal.throwIfAborted();
  const bytes = await store.getRange(blobKey(blob), offset, length, ctx.signal);
  totals.transferred += length;
  for (const chunk of chunks) {
    const start = chunk.offset - offset;
    const frame = bytes.subarray(start, start + chunk.length);
    const content = await fromFrame(frame, chunk.size, chunk.sha256).catch(() => fetchAgain(fetch, chunk));
    await deliver(chunk, content);
    totals.new += chunk.size * chunk.targets.length;
    fetch.onProgress();
  }
}

/** What was damaged on its way may be whole the second time; what is damaged in the registry is not. */
async function fetchAgain({ ctx, store, totals }: FetchContext, chunk: Wanted): Promise<Buffer> {
  const key = blobKey(chunk.blob);
  const frame = await store.getRange(key, chunk.offset, chunk.length, ctx.signal);
  totals.transferred += chunk.length;
  try {
    return await fromFrame(frame, chunk.size, chunk.sha256);
  } catch (error) {
    const { to, position } = chunk.targets[0]!;
    throw new MvmError(
      "CHUNK_DAMAGED",
      `chunk ${position} of ${to.file.file} is damaged in the registry: ${messageOf(error)}`,
      {
        cause: error,
        detail: `it should have the SHA-256 ${chunk.sha256}, and is in ${key}, ${chunk.length} bytes from ${chunk.offset}`,
        // A push asks for a blob's size only: it relies on this one as long as it is there.
        hint: `nothing was published; delete the object ${key} in the registry's bucket or directory, then push the template again from a machine that has it whole`,
      },
    );
  }
}

async function deliver({ targets, size }: Wanted, content: Buffer): Promise<void> {
  for (const { to, position } of targets) {
    const offset = position * to.record.chunkBytes;
    try {
      if (to.begun) await writeAll(to.handle, content.subarray(0, size), offset);
      else await writeSparse(to.handle, content.subarray(0, size), offset);
    } catch (error) {
      if (isErrno(error, "ENOSPC", "EDQUOT")) {
        throw new MvmError("DISK_FULL", `no space left while writing ${to.file.file}`, {
          cause: error,
          hint: "free some space and pull again: it goes on where it stopped",
        });
      }
      throw error;
    }
  }
}
