import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import { parseRevisionPrefix, type RevisionId, shortRevision, type TemplateName } from "../core/names.ts";
import { forEachParallel } from "../core/parallel.ts";
import { parseTemplateKey, revisionKey, revisionsOf, snapshotsOf } from "./keys.ts";
import { MAX_RECORD_BYTES } from "./record-limits.ts";
import { parseRevisionRecord, parseSnapshotRecord, type RemoteRevision, type RemoteSnapshot } from "./records.ts";
import { listAll, type Store } from "./store.ts";

/** @throws MvmError `REGISTRY_REVISION_NOT_FOUND`, `REGISTRY_CORRUPT`, `NEWER_VERSION` */
export async function readRemoteRevision(
  ctx: Context,
  store: Store,
  name: TemplateName,
  id: RevisionId,
): Promise<RemoteRevision> {
  const key = revisionKey(name, id);
  const object = await store.get(key, MAX_RECORD_BYTES, ctx.signal);
  if (object) return parseRevisionRecord(object.bytes, name, id, key);
  throw new MvmError(
    "REGISTRY_REVISION_NOT_FOUND",
    `${store.description} has no revision ${shortRevision(id)} of ${name}`,
    { hint: `\`mvmctl registry info ${name}\` lists what it has` },
  );
}

/** The snapshots of a revision, in the order of their keys. */
export async function readRemoteSnapshots(
  ctx: Context,
  store: Store,
  { record }: RemoteRevision,
): Promise<RemoteSnapshot[]> {
  const prefix = snapshotsOf(record.template as TemplateName, record.revision as RevisionId);
  const found: RemoteSnapshot[] = [];
  await forEachParallel(await listAll(store, prefix, ctx.signal), 4, async ({ key }) => {
    const parsed = parseTemplateKey(key);
    const object = parsed?.kind === "snapshot" && (await store.get(key, MAX_RECORD_BYTES, ctx.signal));
    if (object) found.push(parseSnapshotRecord(object.bytes, record, parsed.key, key));
  });
  return found.sort((a, b) => a.record.key.localeCompare(b.record.key));
}

/** Ids of the revisions of a template, with when each was written. */
export async function listRemoteRevisions(
  ctx: Context,
  store: Store,
  name: TemplateName,
): Promise<{ id: RevisionId; modifiedMs: number }[]> {
  const found = [];
  for await (const { key, modifiedMs } of store.list(revisionsOf(name), ctx.signal)) {
    const parsed = parseTemplateKey(key);
    if (parsed?.kind === "revision" && parsed.template === name) found.push({ id: parsed.revision, modifiedMs });
  }
  return found;
}

/**
 * The whole id that begins with what somebody typed.
 * @throws MvmError `REGISTRY_REVISION_NOT_FOUND`, `AMBIGUOUS_REVISION`, `INVALID_REVISION`
 */
export async function resolveRemoteRevision(
  ctx: Context,
  store: Store,
  name: TemplateName,
  typed: string,
): Promise<RevisionId> {
  const hint = `\`mvmctl registry info ${name}\` lists what it has`;
  const prefix = parseRevisionPrefix(typed, hint);
  if (prefix.length === 64) return prefix as RevisionId;
  const matches = (await listRemoteRevisions(ctx, store, name)).filter(({ id }) => id.startsWith(prefix));
  const [match, another] = matches;
  if (match && !another) return match.id;
  if (another)
    throw new MvmError("AMBIGUOUS_REVISION", `'${prefix}' is the beginning of ${matches.length} revisions`, { hint });
  throw new MvmError("REGISTRY_REVISION_NOT_FOUND", `${store.description} has no revision ${prefix} of ${name}`, {
    hint,
  });
}
