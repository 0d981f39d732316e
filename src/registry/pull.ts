import { existsSync } from "node:fs";
import { monotonicMs } from "../core/clock.ts";
import type { Context } from "../core/context.ts";
import type { RevisionId, TemplateName } from "../core/names.ts";
import { readRevision } from "../template/revisions.ts";
import { damageOf, readSnapshots } from "../template/snapshots.ts";
import { withTemplateLock } from "../template/store.ts";
import { noSuchTag } from "./catalogue.ts";
import { downloadFiles, orWithoutSnapshot } from "./download.ts";
import { preparePartial } from "./partial.ts";
import { publishPulled } from "./publish-pulled.ts";
import { type RemoteRevision, type RemoteSnapshot, type Signature, type TagRecord, UNKNOWN_TIME } from "./records.ts";
import { readRemoteRevision, readRemoteSnapshots, resolveRemoteRevision } from "./remote.ts";
import { seenTag } from "./seen-tags.ts";
import { isFlakeSigned, isTimeSigned, requireTrusted, requireTrustedContent, tagToSign } from "./signatures.ts";
import type { Store } from "./store.ts";
import { readTag, refuseRollback } from "./tags.ts";
import { noTotals, type TransferTotals } from "./transfer.ts";

export interface PullRequest {
  readonly template: TemplateName;
  /** A tag, or the beginning of a revision's id. */
  readonly what: { readonly tag: string } | { readonly revision: string };
  readonly snapshots: boolean;
  /** Public keys, one of which must have signed all that is pulled; none means that signatures are not asked for. */
  readonly trustedKeys: readonly string[];
  /** Take a tag although it went back to an older build. */
  readonly allowRollback: boolean;
}

export interface PullOutcome {
  readonly template: TemplateName;
  readonly revision: RevisionId;
  readonly architecture: string;
  /** Keys of the snapshots that are beside the revision now. */
  readonly snapshots: readonly string[];
  /** Whether all of it was here already. */
  readonly upToDate: boolean;
  readonly totals: TransferTotals;
  readonly durationMs: number;
}

/** Another pull or build of this template most likely makes what this one is about to. */
const LOCK_WAIT_MS = 60 * 60 * 1000;

/**
 * Takes a revision and its snapshots from a registry and makes it the template's current one. Everything is checked, chunk
 * by chunk and file by file, before anything is published, with one rename. Broken off, it goes on where it stopped.
 * @throws MvmError `REGISTRY_TAG_NOT_FOUND`, `REGISTRY_REVISION_NOT_FOUND`, `TAG_ROLLBACK`, `UNTRUSTED`, `REGISTRY_CORRUPT`,
 *   `CHUNK_DAMAGED`, `DISK_FULL`, `REGISTRY_…`
 */
export async function pullTemplate(ctx: Context, store: Store, request: PullRequest): Promise<PullOutcome> {
  const pull = () => pullLocked(ctx, store, request);
  return await withTemplateLock(ctx, request.template, `pulling ${request.template}`, pull, LOCK_WAIT_MS);
}

async function pullLocked(ctx: Context, store: Store, request: PullRequest): Promise<PullOutcome> {
  const started = monotonicMs();
  const { template: name, trustedKeys } = request;
  ctx.report({ kind: "step", text: `Looking at ${store.description}` });
  const tag = "tag" in request.what ? await chooseByTag(ctx, store, request, request.what.tag) : undefined;
  const id =
    "revision" in request.what
      ? await resolveRemoteRevision(ctx, store, name, request.what.revision)
      : (tag!.revision as RevisionId);
  const remote = await trustedRevision(ctx, store, name, id, trustedKeys);
  const snapshots = request.snapshots ? await trustedSnapshots(ctx, store, remote, trustedKeys) : [];

  const missing = await whatIsMissing(ctx, name, remote, snapshots);
  const totals = noTotals();
  if (missing.revision || missing.snapshots.length > 0) {
    const directory = preparePartial(ctx, name, id);
    await downloadFiles(ctx, store, { name, directory, ...missing }, totals);
    await publishPulled(ctx, store, { name, remote, tag, directory, ...missing });
  } else await publishPulled(ctx, store, { name, remote, tag, directory: undefined, ...missing });
  return {
    template: name,
    revision: id,
    architecture: remote.record.architecture,
    snapshots: snapshots.map(({ record }) => record.key),
    upToDate: !missing.revision && missing.snapshots.length === 0,
    totals,
    durationMs: monotonicMs() - started,
  };
}

async function chooseByTag(ctx: Context, store: Store, request: PullRequest, tag: string): Promise<TagRecord> {
  const { template: name, trustedKeys } = request;
  const found = await readTag(ctx, store, name, tag);
  if (!found) throw await noSuchTag(ctx, store, name, tag);
  requireTrusted(tagToSign(found.record), found.record.signatures, trustedKeys, `the tag '${tag}' of ${name}`);
  if (!request.allowRollback) refuseRollback(tag, seenTag(ctx.paths, name, store, tag), found.record);
  return found.record;
}

/**
 * A revision, without what no trusted key signed: its flake would be built from next time, and by its time a tag would be
 * moved or not.
 */
async function trustedRevision(
  ctx: Context,
  store: Store,
  name: TemplateName,
  id: RevisionId,
  trustedKeys: readonly string[],
): Promise<RemoteRevision> {
  const remote = await readRemoteRevision(ctx, store, name, id);
  requireTrustedContent(remote.record, trustedKeys);
  if (trustedKeys.length === 0) return remote;
  const isTrusted = ({ key }: Signature) => trustedKeys.includes(key);
  const { flake, builtAt, ...rest } = remote.record;
  const record = {
    ...rest,
    builtAt: isTimeSigned(remote.record, isTrusted) ? builtAt : UNKNOWN_TIME,
    ...(flake !== undefined && isFlakeSigned(remote.record, isTrusted) ? { flake } : {}),
  };
  return { ...remote, record };
}

async function trustedSnapshots(
  ctx: Context,
  store: Store,
  remote: RemoteRevision,
  trustedKeys: readonly string[],
): Promise<RemoteSnapshot[]> {
  const snapshots = await readRemoteSnapshots(ctx, store, remote);
  try {
    for (const { record } of snapshots) requireTrustedContent(record, trustedKeys);
  } catch (error) {
    throw orWithoutSnapshot(error);
  }
  return snapshots;
}

/** What of a revision is to be fetched. */
export interface Missing {
  /** The revision itself, if it is not here. */
  readonly revision: RemoteRevision | undefined;
  readonly snapshots: readonly RemoteSnapshot[];
}

async function whatIsMissing(
  ctx: Context,
  name: TemplateName,
  remote: RemoteRevision,
  snapshots: readonly RemoteSnapshot[],
): Promise<Missing> {
  const id = remote.record.revision as RevisionId;
  if (!existsSync(ctx.paths.revision(name, id))) return { revision: remote, snapshots };
  readRevision(ctx.paths, name, id); // one that is damaged is to be mended, not added to
  const here = new Map(readSnapshots(ctx.paths.snapshots(name, id)).map((stored) => [stored.key, stored]));
  const missing = [];
  for (const remoteSnapshot of snapshots) {
    const stored = here.get(remoteSnapshot.record.key);
    // A snapshot that was made here is as good as the registry's: both fit this revision.
    if (!stored || (await damageOf(stored, ctx.signal)) !== undefined) missing.push(remoteSnapshot);
  }
  return { revision: undefined, snapshots: missing };
}
