import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import { forEachParallel } from "../core/parallel.ts";
import { CollectionNote } from "./collection-note.ts";
import { BLOBS, COLLECTIONS, PROBES, PUSHES, parseTemplateKey, TEMPLATES } from "./keys.ts";
import { readAnyRecord } from "./known-chunks.ts";
import { ABANDONED_NOTE_MS } from "./note-age.ts";
import { MAX_RECORD_BYTES } from "./record-limits.ts";
import { parsePushRecord } from "./records.ts";
import type { ObjectInfo, Store } from "./store.ts";

export interface CollectRequest {
  /** Only say what would be removed. */
  readonly dryRun: boolean;
  /** Objects younger than this are left alone, by the store's clock. Milliseconds. */
  readonly graceMs: number;
}

export interface CollectOutcome {
  /** Blobs, and notes of pushes that nobody came back for. */
  readonly removed: readonly string[];
  readonly bytes: number;
  readonly kept: number;
  readonly dryRun: boolean;
}

const PARALLEL = 4;
/** As many as a note has room for; the next collection removes the others. */
const MAX_DOOMED = 200_000;

/**
 * Mark and sweep: removes blobs that no record names, and what broken-off pushes left, once they are old enough. Safe
 * beside a push: see PushJournal.
 * @throws MvmError `REGISTRY_CORRUPT` when a record can't be read: then nothing is removed, for its blobs are not known;
 *   `COLLECTION_LAPSED`
 */
export async function collectGarbage(
  ctx: Context,
  store: Store,
  { dryRun, graceMs }: CollectRequest,
): Promise<CollectOutcome> {
  await using note = await CollectionNote.open(ctx, store);
  const now = await note.storeTime();
  const isOld = ({ modifiedMs }: ObjectInfo) => now - modifiedMs >= graceMs;
  const isAbandoned = ({ modifiedMs }: ObjectInfo) => now - modifiedMs >= Math.max(graceMs, ABANDONED_NOTE_MS);
  const marking = { ctx, store, note, isAbandoned };

  const blobs = await listAll(ctx, store, BLOBS);
  const first = await markLive(marking);
  const doomed = blobs.filter((blob) => isOld(blob) && !first.live.has(digestOf(blob))).slice(0, MAX_DOOMED);
  const found = outcomeOf(blobs, doomed, first.deadPushes);
  if (dryRun) return { ...found, dryRun };
  const outcome = found.removed.length > 0 ? await sweep(marking, blobs, doomed) : found;
  for (const prefix of [COLLECTIONS, PROBES])
    for (const left of (await listAll(ctx, store, prefix)).filter(isAbandoned)) await deleteAbandoned(marking, left);
  return { ...outcome, dryRun };
}

/** Removes what is doomed, if nobody turns out to use it now that everybody can know. */
async function sweep(marking: Marking, blobs: readonly ObjectInfo[], doomed: readonly ObjectInfo[]): Promise<Removed> {
  const { ctx, store, note } = marking;
  await note.announce(doomed.map(digestOf));
  // A push that began before that is seen now, and so is one that woke up.
  const { live, deadPushes } = await markLive(marking);
  const unused = doomed.filter((blob) => !live.has(digestOf(blob)));
  await forEachParallel(unused, PARALLEL, async ({ key }) => {
    await note.requireHeld();
    await store.delete(key, ctx.signal);
  });
  for (const push of deadPushes) await deleteAbandoned(marking, push);
  return outcomeOf(blobs, unused, deadPushes);
}

type Removed = Omit<CollectOutcome, "dryRun">;

function outcomeOf(
  blobs: readonly ObjectInfo[],
  doomed: readonly ObjectInfo[],
  deadPushes: readonly ObjectInfo[],
): Removed {
  return {
    removed: [...doomed, ...deadPushes].map(({ key }) => key),
    bytes: doomed.reduce((sum, { size }) => sum + size, 0),
    kept: blobs.length - doomed.length,
  };
}

interface Marking {
  readonly ctx: Context;
  readonly store: Store;
  readonly note: CollectionNote;
  readonly isAbandoned: (note: ObjectInfo) => boolean;
}

const digestOf = ({ key }: ObjectInfo) => key.slice(BLOBS.length);

async function listAll(ctx: Context, store: Store, prefix: string): Promise<ObjectInfo[]> {
  const found = [];
  for await (const object of store.list(prefix, ctx.signal)) found.push(object);
  return found;
}

/**
 * Blobs that a push which is not dead relies on, or a record names; and the pushes that are dead now. Pushes are asked first:
 * one that ends in between has written its records by then.
 */
async function markLive({
  ctx,
  store,
  note,
  isAbandoned,
}: Marking): Promise<{ live: ReadonlySet<string>; deadPushes: readonly ObjectInfo[] }> {
  const live = new Set<string>();
  const pushes = await listAll(ctx, store, PUSHES);
  for (const push of pushes) {
    if (isAbandoned(push)) continue;
    const object = await store.get(push.key, MAX_RECORD_BYTES, ctx.signal);
    for (const blob of object ? parsePushRecord(object.bytes, push.key).blobs : []) live.add(blob);
  }
  const records = (await listAll(ctx, store, TEMPLATES)).filter(({ key }) => {
    const parsed = parseTemplateKey(key);
    return parsed && parsed.kind !== "tag";
  });
  await forEachParallel(records, PARALLEL, async ({ key }) => {
    await note.requireHeld();
    const record = await readAnyRecord(ctx, store, key);
    for (const blob of record?.blobs ?? []) live.add(blob);
  });
  return { live, deadPushes: pushes.filter(isAbandoned) };
}

/** Removes what somebody who is gone wrote for a time, unless it came back and wrote that anew. */
async function deleteAbandoned({ ctx, store, isAbandoned }: Marking, { key }: ObjectInfo): Promise<void> {
  const info = await store.head(key, ctx.signal);
  if (info && isAbandoned(info)) await store.delete(key, ctx.signal);
}

/** `24h`, `30m`, `7d`, `0`: as milliseconds. @throws MvmError `INVALID_DURATION` */
export function parseDuration(text: string): number {
  const match = /^(\d{1,6})(s|m|h|d)?$/.exec(text);
  const units = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
  if (match && (match[2] !== undefined || match[1] === "0"))
    return Number(match[1]) * units[(match[2] ?? "s") as keyof typeof units];
  throw new MvmError("INVALID_DURATION", `'${text.slice(0, 40)}' is not a length of time`, {
    hint: "write it like 30m, 24h or 7d",
  });
}
