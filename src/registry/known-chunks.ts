import { CHUNK_BYTES } from "../core/chunks.ts";
import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import type { TemplateName } from "../core/names.ts";
import { forEachParallel, mapOrdered } from "../core/parallel.ts";
import { blobKey, PUSHES, parseTemplateKey, TEMPLATES } from "./keys.ts";
import { MAX_RECORD_BYTES } from "./record-limits.ts";
import {
  type ContentRecord,
  FRAME_OVERHEAD,
  isDamagedRecord,
  type PushRecord,
  parsePushRecord,
  parseRevisionRecord,
  parseSnapshotRecord,
  type RemoteChunk,
} from "./records.ts";
import { listAll, type ObjectInfo, type Store } from "./store.ts";

/** Where a chunk is in a registry. */
export interface ChunkPlace {
  readonly blob: string;
  readonly offset: number;
  readonly length: number;
}

/** By the SHA-256 of the chunk's content. */
export type KnownChunks = Map<string, ChunkPlace>;

/** The newest records say almost everything; more of them would cost more than they save. */
const RECORDS_OF_THIS_TEMPLATE = 8;
const RECORDS_OF_OTHERS = 8;
const PARALLEL = 8;

/**
 * What a registry has already, as far as it is worth asking: the newest records of this template, a few of others (which
 * often share a kernel), and what broken-off pushes left.
 */
export async function findKnownChunks(ctx: Context, store: Store, name: TemplateName): Promise<KnownChunks> {
  const [records, pushes] = await Promise.all([newestRecords(ctx, store, name), listAll(store, PUSHES, ctx.signal)]);
  const said: SaidPlaces = new Map();
  // A record that is damaged is somebody else's trouble here: it only means that its chunks are not known.
  const readRecord = ({ key }: ObjectInfo) => readAnyRecord(ctx, store, key).catch(ignoreDamage);
  for await (const record of mapOrdered(records, PARALLEL, readRecord)) if (record) addRecord(said, record);
  // After the records, the newest first: a push that was killed also names blobs that it did not come to send.
  const readPush = ({ key }: ObjectInfo) => readPushRecord(ctx, store, key).catch(ignoreDamage);
  for await (const push of mapOrdered(newestFirst(pushes), PARALLEL, readPush))
    if (push) addChunks(said, push.chunks, push.blobs);
  return withoutContradictions(said);
}

/** Every place that somebody says a chunk is at, the likeliest first; mostly one. */
type SaidPlaces = Map<string, ChunkPlace[]>;

async function readPushRecord(ctx: Context, store: Store, key: string): Promise<PushRecord | undefined> {
  const object = await store.get(key, MAX_RECORD_BYTES, ctx.signal);
  return object && parsePushRecord(object.bytes, key);
}

function newestFirst(objects: readonly ObjectInfo[]): ObjectInfo[] {
  return objects.toSorted((a, b) => b.modifiedMs - a.modifiedMs);
}

async function newestRecords(ctx: Context, store: Store, name: TemplateName): Promise<ObjectInfo[]> {
  const own: ObjectInfo[] = [];
  const others: ObjectInfo[] = [];
  for await (const object of store.list(TEMPLATES, ctx.signal)) {
    const parsed = parseTemplateKey(object.key);
    if (!parsed || parsed.kind === "tag") continue;
    (parsed.template === name ? own : others).push(object);
  }
  return [...newestFirst(own).slice(0, RECORDS_OF_THIS_TEMPLATE), ...newestFirst(others).slice(0, RECORDS_OF_OTHERS)];
}

/** A revision's or a snapshot's record, by its key. @throws MvmError `REGISTRY_CORRUPT`, `NEWER_VERSION` */
export async function readAnyRecord(ctx: Context, store: Store, key: string): Promise<ContentRecord | undefined> {
  const parsed = parseTemplateKey(key);
  if (!parsed || parsed.kind === "tag") return undefined;
  const object = await store.get(key, MAX_RECORD_BYTES, ctx.signal);
  if (!object) return undefined;
  if (parsed.kind === "revision")
    return parseRevisionRecord(object.bytes, parsed.template, parsed.revision, key).record;
  return parseSnapshotRecord(object.bytes, parsed, parsed.key, key).record;
}

function ignoreDamage(error: unknown): undefined {
  if (isDamagedRecord(error) || (error instanceof MvmError && error.code === "NEWER_VERSION")) return undefined;
  throw error;
}

function addRecord(said: SaidPlaces, record: ContentRecord): void {
  for (const file of record.files) {
    addChunks(
      said,
      file.chunks.filter((chunk) => typeof chunk !== "number"),
      record.blobs,
    );
  }
}

function addChunks(said: SaidPlaces, chunks: readonly RemoteChunk[], blobs: readonly string[]): void {
  for (const [sha256, index, offset, length] of chunks) {
    const blob = blobs[index];
    if (blob === undefined || length < 1 || length > CHUNK_BYTES + FRAME_OVERHEAD) continue;
    const places = said.get(sha256) ?? [];
    said.set(sha256, places);
    if (!places.some((place) => place.blob === blob && place.offset === offset && place.length === length))
      places.push({ blob, offset, length });
  }
}

/**
 * Frames in a blob stand side by side. Where two places overlap, one of them is wrong, and it is not known which: what
 * relied on it could be pushed, and not pulled. Those chunks are sent anew, so that one bad record does not spoil others.
 */
function withoutContradictions(said: SaidPlaces): KnownChunks {
  const inBlob = new Map<string, ChunkPlace[]>();
  for (const places of said.values())
    for (const place of places) {
      const others = inBlob.get(place.blob);
      if (others) others.push(place);
      else inBlob.set(place.blob, [place]);
    }
  const doubtful = new Set<ChunkPlace>();
  const endOf = ({ offset, length }: ChunkPlace) => offset + length;
  for (const places of inBlob.values()) {
    let furthest: ChunkPlace | undefined;
    for (const place of places.sort((a, b) => a.offset - b.offset)) {
      if (furthest && place.offset < endOf(furthest)) doubtful.add(place).add(furthest);
      if (!furthest || endOf(place) > endOf(furthest)) furthest = place;
    }
  }
  const known: KnownChunks = new Map();
  for (const [sha256, places] of said) {
    const place = places.find((one) => !doubtful.has(one));
    if (place) known.set(sha256, place);
  }
  return known;
}

/** Forgets what is in blobs that are not there, or are too short to hold it. */
export async function forgetMissingBlobs(ctx: Context, store: Store, known: KnownChunks): Promise<void> {
  const sizes = new Map<string, number>();
  await forEachParallel(new Set([...known.values()].map(({ blob }) => blob)), PARALLEL, async (blob) => {
    const info = await store.head(blobKey(blob), ctx.signal);
    sizes.set(blob, info?.size ?? 0);
  });
  for (const [sha256, { blob, offset, length }] of known) {
    if (offset + length > (sizes.get(blob) ?? 0)) known.delete(sha256);
  }
}
