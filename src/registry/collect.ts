import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import { forEachParallel } from "../core/parallel.ts";
import { CollectionNote } from "./collection-note.ts";
import { BLOBS, COLLECTIONS, PROBES, parseTemplateKey, TEMPLATES } from "./keys.ts";
import { readAnyRecord } from "./known-chunks.ts";
import { ABANDONED_NOTE_MS } from "./note-age.ts";
import { readPushes } from "./push-journal.ts";
import { type RetiredRevision, retireUntagged } from "./retire.ts";
import { listAll, type ObjectInfo, type Store } from "./store.ts";

export interface CollectRequest {
  /** Only say what would be removed. */
  readonly dryRun: boolean;
  /** Objects younger than this are left alone, by the store's clock. Milliseconds. */
  readonly graceMs: number;
  /** Also remove revisions that no tag names, but for so many of each template: those that were pushed last. */
  readonly untagged?: { readonly keep: number };
}

export interface CollectOutcome {
  /** Blobs, and notes of pushes that nobody came back for. */
  readonly removed: readonly string[];
  readonly bytes: number;
  readonly kept: number;
  /** Revisions that no tag named. */
  readonly revisions: readonly Pick<RetiredRevision, "template" | "revision">[];
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
  { dryRun, graceMs, untagged }: CollectRequest,
): Promise<CollectOutcome> {
  await using note = await CollectionNote.open(ctx, store);
  const now = await note.storeTime();
  const isOld = ({ modifiedMs }: ObjectInfo) => now - modifiedMs >= graceMs;
  const isAbandoned = ({ modifiedMs }: ObjectInfo) => now - modifiedMs >= Math.max(graceMs, ABANDONED_NOTE_MS);
  const retiring = untagged && { ...untagged, dryRun, isOld, isAbandoned };
  const retired = retiring ? await retireUntagged(ctx, store, retiring) : [];
  const revisions = retired.map(({ template, revision }) => ({ template, revision }));
  // A dry run has to pass them over; else they are gone, or were put there again.
  const marking = {
    ctx,
    store,
    note,
    isAbandoned,
    retired: new Set(dryRun ? retired.flatMap(({ keys }) => keys) : []),
  };

  const blobs = await listAll(store, BLOBS, ctx.signal);
  const first = await markLive(marking);
  const doomed = blobs.filter((blob) => isOld(blob) && !first.live.has(digestOf(blob))).slice(0, MAX_DOOMED);
  const found = outcomeOf(blobs, doomed, first.deadPushes);
  if (dryRun) return { ...found, revisions, dryRun };
  const outcome = found.removed.length > 0 ? await sweep(marking, blobs, doomed) : found;
  for (const prefix of [COLLECTIONS, PROBES])
    for (const left of (await listAll(store, prefix, ctx.signal)).filter(isAbandoned))
      await deleteAbandoned(marking, left);
  return { ...outcome, revisions, dryRun };
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

type Removed = Pick<CollectOutcome, "removed" | "bytes" | "kept">;

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
  /** Keys of records that count as gone already. */
  readonly retired: ReadonlySet<string>;
}

const digestOf = ({ key }: ObjectInfo) => key.slice(BLOBS.length);

/**
 * Blobs that a push which is not dead relies on, or a record names; and the pushes that are dead now. Pushes are asked first:
 * one that ends in between has written its records by then.
 */
async function markLive({
  ctx,
  store,
  note,
  isAbandoned,
  retired,
}: Marking): Promise<{ live: ReadonlySet<string>; deadPushes: readonly ObjectInfo[] }> {
  const live = new Set<string>();
  const pushes = await readPushes(ctx, store, isAbandoned);
  for (const { blobs } of pushes.live) for (const blob of blobs) live.add(blob);
  const records = (await listAll(store, TEMPLATES, ctx.signal)).filter(({ key }) => {
    const parsed = parseTemplateKey(key);
    return parsed && parsed.kind !== "tag" && !retired.has(key);
  });
  await forEachParallel(records, PARALLEL, async ({ key }) => {
    await note.requireHeld();
    const record = await readAnyRecord(ctx, store, key);
    for (const blob of record?.blobs ?? []) live.add(blob);
  });
  return { live, deadPushes: pushes.dead };
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
