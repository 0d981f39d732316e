import { createHash } from "node:crypto";
import type { Context } from "../core/context.ts";
import { MvmError, messageOf } from "../core/errors.ts";
import { forEachParallel } from "../core/parallel.ts";
import { fromFrame } from "./frames.ts";
import { blobKey } from "./keys.ts";
import type { Store } from "./store.ts";

/** What a record says is at a place in a blob. */
export interface ExpectedChunk {
  readonly sha256: string;
  /** Of its frame in the blob. */
  readonly offset: number;
  readonly length: number;
  /** Bytes of its content. */
  readonly size: number;
}

/** What is wrong with a blob. */
export interface BlobDamage {
  /** With the blob itself: it is missing, too short, or altered. */
  readonly blob?: string;
  /** With what records say of it: these chunks are not where they should be, and why. */
  readonly chunks: ReadonlyMap<ExpectedChunk, string>;
}

const RANGE_BYTES = 4 * 1024 * 1024;
const PARALLEL = 4;

/**
 * Reads a whole blob once, and compares it with its name and each chunk in it with its digest. Memory stays at a range and the
 * frame that reaches into the next one.
 * @throws MvmError `REGISTRY_…` when it can't be read
 */
export async function checkBlob(
  ctx: Context,
  store: Store,
  blob: string,
  expected: readonly ExpectedChunk[],
  onRead: (bytes: number) => void,
): Promise<BlobDamage> {
  const chunks = new Map<ExpectedChunk, string>();
  const info = await store.head(blobKey(blob), ctx.signal);
  if (!info) return { blob: "it is missing", chunks };
  const rest = [...expected].sort((a, b) => b.offset - a.offset);
  const end = rest.reduce((most, { offset, length }) => Math.max(most, offset + length), 0);
  if (info.size < end) return { blob: `it has ${info.size} bytes, and chunks up to ${end}`, chunks };

  const hash = createHash("sha256");
  let window: Buffer = Buffer.alloc(0);
  let start = 0;
  for (let position = 0; position < info.size; ) {
    const range = await readRange(ctx, store, blob, position, Math.min(RANGE_BYTES, info.size - position));
    if (typeof range === "string") return { blob: range, chunks };
    hash.update(range);
    onRead(range.length);
    position += range.length;
    window = Buffer.concat([window, range]);
    const ready = takeReady(rest, position);
    await forEachParallel(ready, PARALLEL, async (chunk) => {
      const frame = window.subarray(chunk.offset - start, chunk.offset - start + chunk.length);
      const damage = await fromFrame(frame, chunk.size, chunk.sha256).then(() => undefined, messageOf);
      if (damage !== undefined) chunks.set(chunk, damage);
    });
    const keepFrom = Math.min(rest.at(-1)?.offset ?? position, position);
    window = window.subarray(keepFrom - start);
    start = keepFrom;
  }
  const found = hash.digest("hex");
  return found === blob ? { chunks } : { blob: `its SHA-256 is ${found}`, chunks };
}

/** Takes the chunks off the end of the list whose frames have been read, as far as none before them has not. */
function takeReady(rest: ExpectedChunk[], position: number): ExpectedChunk[] {
  const ready: ExpectedChunk[] = [];
  for (let next = rest.at(-1); next && next.offset + next.length <= position; next = rest.at(-1)) {
    ready.push(next);
    rest.pop();
  }
  return ready;
}

/** Bytes of a blob, or what is wrong with it: it is shorter than it was said to be. */
async function readRange(
  ctx: Context,
  store: Store,
  blob: string,
  offset: number,
  length: number,
): Promise<Buffer | string> {
  try {
    return await store.getRange(blobKey(blob), offset, length, ctx.signal);
  } catch (error) {
    if (error instanceof MvmError && error.code === "REGISTRY_SHORT_READ") return messageOf(error);
    throw error;
  }
}
