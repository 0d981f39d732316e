import type { Context } from "../core/context.ts";
import type { RevisionId, TemplateName } from "../core/names.ts";
import { parseTemplateKey, TEMPLATES, tagsOf } from "./keys.ts";
import { readPushes } from "./push-journal.ts";
import { MAX_RECORD_BYTES } from "./record-limits.ts";
import { listAll, type ObjectInfo, type Store, type StoredObject } from "./store.ts";
import { readTag } from "./tags.ts";

/** A revision of a registry with the keys of its records: its own, and then its snapshots'. */
export interface RetiredRevision {
  readonly template: TemplateName;
  readonly revision: RevisionId;
  readonly keys: readonly string[];
}

export interface RetireRequest {
  /** Of the revisions of a template that no tag names, so many stay: those that were pushed last. */
  readonly keep: number;
  /** Only say what would be removed. */
  readonly dryRun: boolean;
  /** Whether a record is old enough to be removed. */
  readonly isOld: (object: ObjectInfo) => boolean;
  /** Whether a push's journal is left by somebody who is gone. */
  readonly isAbandoned: (object: ObjectInfo) => boolean;
}

/** What is removed before the tags are asked again; their records are in memory until then. */
const BATCH = 8;

/**
 * Removes the records of revisions that no tag names. What they alone used is garbage then. A template that is being pushed
 * keeps all of its own.
 * @throws MvmError `REGISTRY_CORRUPT` when a tag can't be read: it is not known what it names
 */
export async function retireUntagged(ctx: Context, store: Store, request: RetireRequest): Promise<RetiredRevision[]> {
  const retired: RetiredRevision[] = [];
  for (const [name, revisions] of await revisionsByTemplate(ctx, store)) {
    const isWanted = await whatIsWanted(ctx, store, name, request);
    const untagged = revisions.filter(({ revision }) => !isWanted(revision)).slice(request.keep);
    const doomed = untagged.filter(request.isOld);
    if (request.dryRun) retired.push(...doomed);
    else
      for (let first = 0; first < doomed.length; first += BATCH)
        retired.push(...(await removeBatch(ctx, store, name, doomed.slice(first, first + BATCH), request)));
  }
  return retired;
}

type FoundRevision = RetiredRevision & ObjectInfo;

/** Those of each template, the one that was pushed last first. */
async function revisionsByTemplate(ctx: Context, store: Store): Promise<Map<TemplateName, FoundRevision[]>> {
  const found = new Map<string, FoundRevision>();
  for (const object of await listAll(store, TEMPLATES, ctx.signal)) {
    const parsed = parseTemplateKey(object.key);
    if (!parsed || parsed.kind === "tag") continue;
    const { template, revision } = parsed;
    const id = `${template}@${revision}`;
    const before = found.get(id);
    // In the order of the list: the revision's own comes first.
    const keys = [...(before?.keys ?? []), object.key];
    const modifiedMs = Math.max(object.modifiedMs, before?.modifiedMs ?? 0);
    found.set(id, { ...object, template, revision, keys, modifiedMs });
  }
  const newestFirst = [...found.values()].sort((a, b) => b.modifiedMs - a.modifiedMs);
  return Map.groupBy(newestFirst, ({ template }) => template);
}

/**
 * Which revisions a tag names or may name soon. Pushes are asked first: one that ends in between has moved its tag by then.
 */
async function whatIsWanted(
  ctx: Context,
  store: Store,
  name: TemplateName,
  { isAbandoned }: RetireRequest,
): Promise<(id: RevisionId) => boolean> {
  const { live } = await readPushes(ctx, store, isAbandoned);
  if (live.some(({ template }) => template === name)) return () => true;
  const tagged = new Set<string>();
  for (const { key } of await listAll(store, tagsOf(name), ctx.signal)) {
    const parsed = parseTemplateKey(key);
    const found = parsed?.kind === "tag" && (await readTag(ctx, store, name, parsed.tag));
    if (found) tagged.add(found.record.revision);
  }
  return (id) => tagged.has(id);
}

/**
 * Removes records, and puts those back that a push turns out to have begun to rely on meanwhile: it wrote its journal before it
 * looked whether they are there, and its tag before it removed that.
 */
async function removeBatch(
  ctx: Context,
  store: Store,
  name: TemplateName,
  batch: readonly FoundRevision[],
  request: RetireRequest,
): Promise<FoundRevision[]> {
  const removed = new Map<FoundRevision, Map<string, StoredObject>>();
  for (const revision of batch) {
    const objects = new Map<string, StoredObject>();
    removed.set(revision, objects);
    for (const key of revision.keys) {
      const object = await store.get(key, MAX_RECORD_BYTES, ctx.signal);
      if (object) objects.set(key, object);
      await store.delete(key, ctx.signal);
    }
  }
  const isWanted = await whatIsWanted(ctx, store, name, request);
  for (const [{ revision }, objects] of removed) {
    if (!isWanted(revision)) continue;
    // The revision's own last, as a push does.
    for (const [key, { bytes }] of [...objects].reverse())
      if (!(await store.head(key, ctx.signal))) await store.put(key, bytes, {}, ctx.signal);
  }
  return batch.filter(({ revision }) => !isWanted(revision));
}
