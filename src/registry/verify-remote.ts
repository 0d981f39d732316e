import { chunkLength, forEachChunk } from "../core/chunks.ts";
import { monotonicMs } from "../core/clock.ts";
import type { Context } from "../core/context.ts";
import { messageOf } from "../core/errors.ts";
import { type RevisionId, shortRevision, type TemplateName } from "../core/names.ts";
import { forEachParallel } from "../core/parallel.ts";
import { formatBytes } from "../core/sizes.ts";
import { noSuchTemplate } from "./catalogue.ts";
import { checkBlob, type ExpectedChunk } from "./check-blob.ts";
import { blobKey, parseTemplateKey, recordKey, tagsOf } from "./keys.ts";
import { type ContentRecord, isDamagedRecord, type RemoteChunk, titleOf } from "./records.ts";
import { listRemoteRevisions, readRemoteRevision, readRemoteSnapshots } from "./remote.ts";
import type { Store } from "./store.ts";
import { readTag } from "./tags.ts";

export interface RemoteVerifyOutcome {
  readonly template: TemplateName;
  readonly revisions: number;
  readonly tags: number;
  readonly blobs: number;
  readonly chunks: number;
  /** Bytes of the blobs. */
  readonly bytes: number;
  readonly damage: readonly RemoteDamage[];
  readonly durationMs: number;
}

/** An object that is not what it should be, and one of the revisions that it is of, if that is known. */
export interface RemoteDamage {
  readonly revision?: RevisionId;
  readonly object: string;
  readonly reason: string;
}

const PARALLEL = 3;

/** What records say of blobs, each chunk of a blob once, and one of the revisions and files that need it. */
interface Expected {
  readonly revision: RevisionId;
  readonly file: string;
  readonly chunks: Map<string, ExpectedChunk>;
}

/**
 * Reads every tag and record of a template in a registry, or those of some revisions, and every blob that one names. Blobs are
 * compared with their names, and each chunk in them with its digest.
 * @throws MvmError `REGISTRY_TEMPLATE_NOT_FOUND`, `NEWER_VERSION`
 */
export async function verifyRemote(
  ctx: Context,
  store: Store,
  name: TemplateName,
  revisions?: readonly RevisionId[],
): Promise<RemoteVerifyOutcome> {
  const started = monotonicMs();
  ctx.report({ kind: "step", text: `Reading ${name} in ${store.description}` });
  const there = (await listRemoteRevisions(ctx, store, name)).map(({ id }) => id);
  const tags = revisions ? { count: 0, damage: [] } : await checkTags(ctx, store, name, there);
  const ids = revisions ?? there;
  if (ids.length === 0 && tags.count === 0) throw await noSuchTemplate(ctx, store, name);

  const damage: RemoteDamage[] = [...tags.damage];
  const blobs = new Map<string, Expected>();
  await forEachRecord(ctx, store, name, ids, (record) => noteChunks(blobs, record), damage);
  const misplaced = new Map<string, string>();
  let [bytes, done] = [0, 0];
  await forEachParallel(blobs, PARALLEL, async ([blob, { revision, file, chunks }]) => {
    const found = await checkBlob(ctx, store, blob, [...chunks.values()], (read) => {
      bytes += read;
      ctx.report({ kind: "detail", text: `${done} of ${blobs.size} blobs, ${formatBytes(bytes)}` });
    });
    done++;
    // A push asks for a blob's size only: it relies on this one as long as it is there.
    const mend = found.blob === "it is missing" ? "" : "; delete this object before the push that mends it";
    if (found.blob !== undefined) {
      const reason = `${found.blob}, with chunks of ${file}${mend}`;
      damage.push({ revision, object: blobKey(blob), reason });
    } else for (const [chunk, why] of found.chunks) misplaced.set(placeOf(blob, chunk), why);
  });
  // Rarely anything: so it is not remembered of each chunk which records it is in.
  if (misplaced.size > 0)
    await forEachRecord(ctx, store, name, ids, (record) => damage.push(...misplacedIn(record, misplaced)), []);
  return {
    template: name,
    revisions: ids.length,
    tags: tags.count,
    blobs: blobs.size,
    chunks: [...blobs.values()].reduce((sum, { chunks }) => sum + chunks.size, 0),
    bytes,
    damage,
    durationMs: monotonicMs() - started,
  };
}

/** Whether each tag can be read, and names a revision that is there. */
async function checkTags(
  ctx: Context,
  store: Store,
  name: TemplateName,
  there: readonly RevisionId[],
): Promise<{ readonly count: number; readonly damage: readonly RemoteDamage[] }> {
  const damage: RemoteDamage[] = [];
  let count = 0;
  for await (const { key } of store.list(tagsOf(name), ctx.signal)) {
    const parsed = parseTemplateKey(key);
    if (parsed?.kind !== "tag") continue;
    count++;
    const remove = `remove it: mvmctl registry delete ${name}:${parsed.tag}`;
    try {
      const revision = (await readTag(ctx, store, name, parsed.tag))?.record.revision as RevisionId | undefined;
      if (revision === undefined || there.includes(revision)) continue;
      const reason = `it means the revision ${shortRevision(revision)}, which is not there; push it again, or ${remove}`;
      damage.push({ revision, object: key, reason });
    } catch (error) {
      if (!isDamagedRecord(error)) throw error;
      damage.push({ object: key, reason: `${messageOf(error)}; ${remove}` });
    }
  }
  return { count, damage };
}

/** Visits the records of these revisions and their snapshots; of a revision with a damaged one, none. */
async function forEachRecord(
  ctx: Context,
  store: Store,
  name: TemplateName,
  ids: readonly RevisionId[],
  visit: (record: ContentRecord) => void,
  damage: RemoteDamage[],
): Promise<void> {
  for (const id of ids) {
    try {
      const remote = await readRemoteRevision(ctx, store, name, id);
      const snapshots = await readRemoteSnapshots(ctx, store, remote);
      for (const { record } of [remote, ...snapshots]) visit(record);
    } catch (error) {
      if (!isDamagedRecord(error)) throw error;
      damage.push({ revision: id, object: "its record", reason: messageOf(error) });
    }
  }
}

function noteChunks(blobs: Map<string, Expected>, record: ContentRecord): void {
  for (const file of record.files) {
    const first = { revision: record.revision as RevisionId, file: `${file.file} of ${titleOf(record)}` };
    forEachChunk(file.chunks, ([sha256, index, offset, length]: RemoteChunk, position) => {
      const blob = record.blobs[index]!;
      const expected = blobs.get(blob) ?? { ...first, chunks: new Map() };
      blobs.set(blob, expected);
      const chunk = { sha256, offset, length, size: chunkLength(file.size, position, record.chunkBytes) };
      expected.chunks.set(placeOf(blob, chunk), chunk);
    });
  }
}

function placeOf(blob: string, { sha256, offset, length }: Omit<ExpectedChunk, "size">): string {
  return `${blob} ${offset} ${length} ${sha256}`;
}

function misplacedIn(record: ContentRecord, misplaced: ReadonlyMap<string, string>): RemoteDamage[] {
  for (const { file, chunks } of record.files) {
    let found: string | undefined;
    forEachChunk(chunks, ([sha256, index, offset, length]: RemoteChunk, position) => {
      const why = misplaced.get(placeOf(record.blobs[index]!, { sha256, offset, length }));
      if (why !== undefined) found ??= `chunk ${position} of ${file} is not where it says: ${why}`;
    });
    // The next push would take the place from there.
    const mend = "delete this object before the push that mends it";
    const revision = record.revision as RevisionId;
    if (found !== undefined) return [{ revision, object: recordKey(record), reason: `${found}; ${mend}` }];
  }
  return [];
}
