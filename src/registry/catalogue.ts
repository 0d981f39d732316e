import type { Context } from "../core/context.ts";
import { MvmError, messageOf } from "../core/errors.ts";
import { type RevisionId, shortRevision, type TemplateName } from "../core/names.ts";
import { nearest } from "../core/nearest.ts";
import { forEachParallel } from "../core/parallel.ts";
import { parseTemplateKey, revisionKey, snapshotsOf, TEMPLATES, tagKey, tagsOf } from "./keys.ts";
import { type ContentRecord, isDamagedRecord, type TagRecord } from "./records.ts";
import { listRemoteRevisions, readRemoteRevision, readRemoteSnapshots, resolveRemoteRevision } from "./remote.ts";
import { listAll, type Store } from "./store.ts";
import { readTag } from "./tags.ts";

/** A template as a registry's list shows it. */
export interface RemoteTemplate {
  readonly name: TemplateName;
  readonly tags: readonly string[];
  readonly revisions: number;
  readonly snapshots: number;
  /** RFC 3339, UTC: when the last of it was written. */
  readonly changedAt: string;
}

/** Every template of a registry, by name. Reads no records. */
export async function listRemoteTemplates(ctx: Context, store: Store): Promise<RemoteTemplate[]> {
  const found = new Map<string, { tags: string[]; revisions: number; snapshots: number; changedMs: number }>();
  for await (const { key, modifiedMs } of store.list(TEMPLATES, ctx.signal)) {
    const parsed = parseTemplateKey(key);
    if (!parsed) continue;
    const entry = found.get(parsed.template) ?? { tags: [], revisions: 0, snapshots: 0, changedMs: 0 };
    if (parsed.kind === "tag") entry.tags.push(parsed.tag);
    else if (parsed.kind === "revision") entry.revisions++;
    else entry.snapshots++;
    entry.changedMs = Math.max(entry.changedMs, modifiedMs);
    found.set(parsed.template, entry);
  }
  return [...found]
    .map(([name, { changedMs, ...rest }]) => ({
      name: name as TemplateName,
      ...rest,
      changedAt: new Date(changedMs).toISOString(),
    }))
    .sort((a, b) => a.name.localeCompare(b.name));
}

export interface RemoteRevisionInfo {
  readonly id: RevisionId;
  readonly builtAt: string;
  readonly architecture: string;
  readonly tags: readonly string[];
  /** Bytes: of the files as they are on a disk, holes included, and of their chunks as they are in the registry. */
  readonly size: number;
  readonly storedBytes: number;
  readonly snapshots: readonly {
    readonly key: string;
    readonly size: number;
    readonly storedBytes: number;
    readonly signedBy: readonly string[];
  }[];
  readonly signedBy: readonly string[];
}

export interface RemoteTemplateInfo {
  readonly name: TemplateName;
  readonly tags: readonly TagRecord[];
  /** The newest first. */
  readonly revisions: readonly RemoteRevisionInfo[];
  /** Tags and revisions that are not what they can be, and so not among the others. */
  readonly damaged: readonly { readonly object: string; readonly reason: string }[];
}

/** What is damaged hides nothing else. @throws MvmError `REGISTRY_TEMPLATE_NOT_FOUND`, `NEWER_VERSION` */
export async function remoteTemplateInfo(ctx: Context, store: Store, name: TemplateName): Promise<RemoteTemplateInfo> {
  const damaged: { object: string; reason: string }[] = [];
  const noteDamage = (object: string) => (error: unknown) => {
    if (!isDamagedRecord(error)) throw error;
    damaged.push({ object, reason: messageOf(error) });
  };
  const tags: TagRecord[] = [];
  for (const tag of await listTags(ctx, store, name)) {
    const found = await readTag(ctx, store, name, tag).catch(noteDamage(tagKey(name, tag)));
    if (found) tags.push(found.record);
  }
  const ids = (await listRemoteRevisions(ctx, store, name)).map(({ id }) => id);
  const revisions: RemoteRevisionInfo[] = [];
  await forEachParallel(ids, 4, async (id) => {
    const read = revisionInfo(ctx, store, name, id, tags);
    const found = await read.catch(noteDamage(revisionKey(name, id)));
    if (found) revisions.push(found);
  });
  for (const { tag, revision } of tags) {
    if (ids.includes(revision as RevisionId)) continue;
    const reason = `it means the revision ${shortRevision(revision as RevisionId)}, which is not there`;
    damaged.push({ object: tagKey(name, tag), reason });
  }
  if (tags.length + ids.length + damaged.length === 0) throw await noSuchTemplate(ctx, store, name);
  return { name, tags, revisions: revisions.sort((a, b) => b.builtAt.localeCompare(a.builtAt)), damaged };
}

async function listTags(ctx: Context, store: Store, name: TemplateName): Promise<string[]> {
  const keys = (await listAll(store, tagsOf(name), ctx.signal)).map(({ key }) => parseTemplateKey(key));
  return keys.flatMap((parsed) => (parsed?.kind === "tag" ? [parsed.tag] : []));
}

async function revisionInfo(
  ctx: Context,
  store: Store,
  name: TemplateName,
  id: RevisionId,
  tags: readonly TagRecord[],
): Promise<RemoteRevisionInfo> {
  const remote = await readRemoteRevision(ctx, store, name, id);
  const snapshots = await readRemoteSnapshots(ctx, store, remote);
  return {
    id,
    builtAt: remote.record.builtAt,
    architecture: remote.record.architecture,
    tags: tags.filter(({ revision }) => revision === id).map(({ tag }) => tag),
    ...sizesOf(remote.record),
    snapshots: snapshots.map(({ record }) => ({ key: record.key, ...sizesOf(record) })),
  };
}

function sizesOf({ files, signatures }: ContentRecord): { size: number; storedBytes: number; signedBy: string[] } {
  const frames = new Map<string, number>();
  for (const { chunks } of files)
    for (const chunk of chunks) if (typeof chunk !== "number") frames.set(chunk[0], chunk[3]);
  return {
    size: files.reduce((sum, { size }) => sum + size, 0),
    storedBytes: [...frames.values()].reduce((sum, length) => sum + length, 0),
    // A key signs a revision and the time it was built.
    signedBy: [...new Set(signatures.map(({ key }) => key))],
  };
}

/** The error for a template that is not there, with the one that may be meant. */
export async function noSuchTemplate(ctx: Context, store: Store, name: TemplateName): Promise<MvmError> {
  const near = nearest(
    name,
    (await listRemoteTemplates(ctx, store)).map((template) => template.name),
  );
  return new MvmError("REGISTRY_TEMPLATE_NOT_FOUND", `${store.description} has no template '${name}'`, {
    hint: near
      ? `did you mean '${near}'?`
      : `\`mvmctl registry ls\` shows what it has; mvmctl template push ${name} puts it there`,
  });
}

/** The error for a tag that is not there, with those that are. */
export async function noSuchTag(ctx: Context, store: Store, name: TemplateName, tag: string): Promise<MvmError> {
  const template = (await listRemoteTemplates(ctx, store)).find((one) => one.name === name);
  if (!template) return await noSuchTemplate(ctx, store, name);
  return new MvmError("REGISTRY_TAG_NOT_FOUND", `${store.description} has no tag '${tag}' of ${name}`, {
    hint:
      template.tags.length > 0
        ? `it has ${template.tags.join(", ")}`
        : `it has revisions without a tag: mvmctl registry info ${name}`,
  });
}

/**
 * Removes a tag, a revision that no tag names, or a whole template with all its tags and records. Their blobs are removed
 * by the next collection.
 * @throws MvmError `REGISTRY_TEMPLATE_NOT_FOUND`, `REGISTRY_TAG_NOT_FOUND`, `REGISTRY_REVISION_NOT_FOUND`, `REVISION_TAGGED`
 */
export async function deleteRemote(
  ctx: Context,
  store: Store,
  name: TemplateName,
  part?: { readonly tag: string } | { readonly revision: string },
): Promise<{ removed: number }> {
  const keys = !part
    ? await keysUnder(ctx, store, `${TEMPLATES}${name}/`)
    : "tag" in part
      ? await keysOfTag(ctx, store, name, part.tag)
      : await keysOfRevision(ctx, store, name, part.revision);
  if (keys.length === 0) throw await noSuchTemplate(ctx, store, name);
  // Tags first: whoever pulls meanwhile finds none, or all of what it names.
  const order = (key: string) => (key.startsWith(tagsOf(name)) ? 0 : 1);
  for (const key of keys.sort((a, b) => order(a) - order(b))) await store.delete(key, ctx.signal);
  return { removed: keys.length };
}

async function keysUnder(ctx: Context, store: Store, prefix: string): Promise<string[]> {
  return (await listAll(store, prefix, ctx.signal)).map(({ key }) => key);
}

async function keysOfTag(ctx: Context, store: Store, name: TemplateName, tag: string): Promise<string[]> {
  // It is not read: one that is damaged can be removed, too.
  if (!(await store.head(tagKey(name, tag), ctx.signal))) throw await noSuchTag(ctx, store, name, tag);
  return [tagKey(name, tag)];
}

async function keysOfRevision(ctx: Context, store: Store, name: TemplateName, typed: string): Promise<string[]> {
  const id = await resolveRemoteRevision(ctx, store, name, typed);
  for (const tag of await listTags(ctx, store, name)) {
    if ((await readTag(ctx, store, name, tag))?.record.revision !== id) continue;
    throw new MvmError("REVISION_TAGGED", `revision ${shortRevision(id)} of ${name} is what the tag '${tag}' means`, {
      hint: `remove the tag first: mvmctl registry delete ${name}:${tag}`,
    });
  }
  return [revisionKey(name, id), ...(await keysUnder(ctx, store, snapshotsOf(name, id)))];
}
