import { randomUUID } from "node:crypto";
import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import { forEachParallel } from "../core/parallel.ts";
import { BLOBS, COLLECTIONS, PUSHES, parseTemplateKey, TEMPLATES } from "./keys.ts";
import { readAnyRecord } from "./known-chunks.ts";
import { MAX_RECORD_BYTES } from "./record-limits.ts";
import { parsePushRecord, renderRecord } from "./records.ts";
import { type ObjectInfo, type Store, takeBack } from "./store.ts";

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
/** A push writes its journal anew with each blob that arrives; one that did not for so long is dead, whatever the grace time is. */
const DEAD_PUSH_MS = 60 * 60 * 1000;

/**
 * Mark and sweep: removes blobs that no record names, and what broken-off pushes left, once they are old enough. Safe
 * beside a push: see PushJournal.
 * @throws MvmError `REGISTRY_CORRUPT` when a record can't be read: then nothing is removed, for its blobs are not known
 */
export async function collectGarbage(
  ctx: Context,
  store: Store,
  { dryRun, graceMs }: CollectRequest,
): Promise<CollectOutcome> {
  const own = `${COLLECTIONS}${randomUUID()}.json`;
  // The store's clock tells how old objects are, not ours.
  await store.put(own, renderRecord({ version: 1, kind: "collection", blobs: [] }), {}, ctx.signal);
  const now = (await store.head(own, ctx.signal))?.modifiedMs ?? Date.now();
  try {
    const isOld = ({ modifiedMs }: ObjectInfo) => now - modifiedMs >= graceMs;
    const isDead = ({ modifiedMs }: ObjectInfo) => now - modifiedMs >= Math.max(graceMs, DEAD_PUSH_MS);
    const deadPushes = (await listAll(ctx, store, PUSHES)).filter(isDead);
    const blobs = await listAll(ctx, store, BLOBS);
    const live = await liveBlobs(ctx, store, isDead);
    const doomed = blobs.filter((blob) => isOld(blob) && !live.has(digestOf(blob)));
    const outcome = {
      removed: [...doomed, ...deadPushes].map(({ key }) => key),
      bytes: doomed.reduce((sum, { size }) => sum + size, 0),
      kept: blobs.length - doomed.length,
      dryRun,
    };
    if (dryRun || outcome.removed.length === 0) return outcome;
    // From here on a push that begins will not rely on these; one that began before is seen now.
    const intent = { version: 1, kind: "collection", blobs: doomed.map(digestOf) };
    await store.put(own, renderRecord(intent), {}, ctx.signal);
    const stillLive = await liveBlobs(ctx, store, isDead);
    const sweep = doomed.filter((blob) => !stillLive.has(digestOf(blob)));
    await forEachParallel([...sweep, ...deadPushes], PARALLEL, ({ key }) => store.delete(key, ctx.signal));
    await removeOldCollections(ctx, store, isOld, own);
    return {
      ...outcome,
      removed: [...sweep, ...deadPushes].map(({ key }) => key),
      bytes: sweep.reduce((sum, { size }) => sum + size, 0),
    };
  } finally {
    await takeBack(store, own);
  }
}

const digestOf = ({ key }: ObjectInfo) => key.slice(BLOBS.length);

async function listAll(ctx: Context, store: Store, prefix: string): Promise<ObjectInfo[]> {
  const found = [];
  for await (const object of store.list(prefix, ctx.signal)) found.push(object);
  return found;
}

/**
 * Blobs that a push which is not dead relies on, or a record names. Pushes are asked first: one that ends in between has
 * written its records by then.
 */
async function liveBlobs(ctx: Context, store: Store, isDead: (object: ObjectInfo) => boolean): Promise<Set<string>> {
  const live = new Set<string>();
  for (const push of await listAll(ctx, store, PUSHES)) {
    if (isDead(push)) continue;
    const object = await store.get(push.key, MAX_RECORD_BYTES, ctx.signal);
    for (const blob of object ? parsePushRecord(object.bytes, push.key).blobs : []) live.add(blob);
  }
  const records = (await listAll(ctx, store, TEMPLATES)).filter(({ key }) => {
    const parsed = parseTemplateKey(key);
    return parsed && parsed.kind !== "tag";
  });
  await forEachParallel(records, PARALLEL, async ({ key }) => {
    const record = await readAnyRecord(ctx, store, key);
    for (const blob of record?.blobs ?? []) live.add(blob);
  });
  return live;
}

/** What collections that were killed left. */
async function removeOldCollections(
  ctx: Context,
  store: Store,
  isOld: (object: ObjectInfo) => boolean,
  own: string,
): Promise<void> {
  for (const object of await listAll(ctx, store, COLLECTIONS))
    if (object.key !== own && isOld(object)) await store.delete(object.key, ctx.signal);
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
