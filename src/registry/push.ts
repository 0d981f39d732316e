import { readFileSync } from "node:fs";
import { join } from "node:path";
import { CHUNK_BYTES } from "../core/chunks.ts";
import { monotonicMs } from "../core/clock.ts";
import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import type { RevisionId, TemplateName } from "../core/names.ts";
import { ensureChunkIndex } from "../template/chunk-index.ts";
import { artifactsOf, type FileDigest } from "../template/revision.ts";
import { currentRevision, listRevisions, readRevision, type StoredRevision } from "../template/revisions.ts";
import { revisionOf } from "../template/rollback.ts";
import { damageOf, filesOf, readSnapshots, type StoredSnapshot } from "../template/snapshots.ts";
import { loadSpec, withTemplateLock } from "../template/store.ts";
import { BlobWriter } from "./blob-writer.ts";
import { LEVELS } from "./frames.ts";
import { findKnownChunks, type KnownChunks } from "./known-chunks.ts";
import { flakeOfRegistry } from "./publish-pulled.ts";
import {
  countFiles,
  describeFiles,
  type FilesToPush,
  PLACE_TO_COME,
  type PlaceOf,
  pushNewChunks,
} from "./push-files.ts";
import { PushJournal } from "./push-journal.ts";
import { putContentRecord, refuseUnsignedSnapshots } from "./put-record.ts";
import { requireReadable } from "./record-limits.ts";
import { type ContentRecord, renderRecord, type TagRecord, titleOf, UNKNOWN_TIME } from "./records.ts";
import { type SigningKey, signText, tagToSign } from "./signatures.ts";
import type { Store } from "./store.ts";
import { isSigned, moveTag, readTag, refuseRollback, refuseUnsigned } from "./tags.ts";
import { noTotals, type TransferTotals, transferProgress } from "./transfer.ts";

export interface PushRequest {
  readonly template: TemplateName;
  /** The beginning of a revision's id; the current one if not given. */
  readonly revision?: string;
  readonly tag: string;
  /** Also the revision's snapshots. */
  readonly snapshots: boolean;
  readonly signingKey?: SigningKey;
  /** Let a signed tag lose its signature, and a signed revision have a snapshot without one. Ignored with a key. */
  readonly allowUnsigned: boolean;
  /** Let the tag go back to an older build. */
  readonly allowRollback: boolean;
  /** Whether the store keeps If-Match and If-None-Match. */
  readonly conditionalWrites: boolean;
}

export interface PushOutcome {
  readonly template: TemplateName;
  readonly revision: RevisionId;
  readonly tag: string;
  /** Keys of the snapshots that are in the registry now with this revision. */
  readonly snapshots: readonly string[];
  readonly totals: TransferTotals;
  readonly durationMs: number;
}

/** While a push reads a revision, nobody may delete it. */
const LOCK_WAIT_MS = 60 * 60 * 1000;

/**
 * Sends a revision and its snapshots to a registry: the chunks it does not have, then the records, then the tag. Killed at
 * any moment, it leaves the tag as it was, and the next push sends only what is missing.
 * @throws MvmError `NOT_BUILT`, `REVISION_NOT_FOUND`, `RECORD_TOO_LARGE`, `TAG_ROLLBACK`, `TAG_SIGNED`, `REVISION_SIGNED`, `TAG_MOVED`, `PUSH_LAPSED`, `ARTIFACT_DAMAGED`, `REGISTRY_…`
 */
export async function pushTemplate(ctx: Context, store: Store, request: PushRequest): Promise<PushOutcome> {
  loadSpec(ctx.paths, request.template);
  const push = () => pushLocked(ctx, store, request);
  return await withTemplateLock(ctx, request.template, `pushing ${request.template}`, push, LOCK_WAIT_MS);
}

async function pushLocked(ctx: Context, store: Store, request: PushRequest): Promise<PushOutcome> {
  const started = monotonicMs();
  const { template: name, tag } = request;
  const revision = revisionToPush(ctx, request);
  ctx.report({ kind: "step", text: `Looking at ${store.description}` });
  const builtAt = revision.build?.builtAt ?? UNKNOWN_TIME;
  const [found, known] = await Promise.all([readTag(ctx, store, name, tag), findKnownChunks(ctx, store, name)]);
  if (!request.signingKey && !request.allowUnsigned) refuseUnsigned(found?.record);
  if (!request.allowRollback) refuseRollback(tag, found?.record, { revision: revision.id, builtAt });

  const snapshots = request.snapshots ? await snapshotsToPush(ctx, name, revision) : [];
  const image = await filesOfImage(ctx, revision);
  const memories = await Promise.all(snapshots.map((snapshot) => filesOfSnapshot(ctx, snapshot)));
  const records = (placeOf: PlaceOf): [ContentRecord, ...ContentRecord[]] => [
    revisionRecord(revision, builtAt, describeFiles(image, placeOf)),
    ...snapshots.map((one, index) => snapshotRecord(revision, one, describeFiles(memories[index]!, placeOf))),
  ];
  // Before hours of sending, and not only when they are written.
  const planned = records((sha256) => known.get(sha256) ?? PLACE_TO_COME);
  for (const record of planned) requireReadable(renderRecord(record), titleOf(record));
  if (!request.signingKey && !request.allowUnsigned) await refuseUnsignedSnapshots(ctx, store, planned);

  const totals = noTotals();
  await sendContent(ctx, store, name, { parts: [image, ...memories], known, totals }, async (journal) => {
    const written = records((sha256) => known.get(sha256)!);
    const blobs = new Set(written.flatMap((record) => record.blobs));
    for (const record of written) {
      await journal.requireHeld(blobs);
      await putContentRecord(ctx, store, record, request.signingKey);
    }
    await journal.requireHeld(blobs);
    // A tag that is signed and names this revision already is better than one that is not.
    if (!request.signingKey && isSigned(found?.record) && found?.record.revision === revision.id) return;
    const record = signTag(tagRecord(name, tag, revision.id, builtAt), request);
    await moveTag(ctx, store, found, record, request.conditionalWrites);
  });
  return {
    template: name,
    revision: revision.id,
    tag,
    snapshots: snapshots.map(({ key }) => key),
    totals,
    durationMs: monotonicMs() - started,
  };
}

/** Sends what is new, lets `publish` write what names it, and ends the push's journal. */
async function sendContent(
  ctx: Context,
  store: Store,
  name: TemplateName,
  { parts, known, totals }: { parts: readonly FilesToPush[]; known: KnownChunks; totals: TransferTotals },
  publish: (journal: PushJournal) => Promise<void>,
): Promise<void> {
  const journal = await PushJournal.open(ctx, store, name, known);
  countFiles(parts, known, totals);
  ctx.report({ kind: "step", text: `Sending ${name}` });
  const onProgress = transferProgress(ctx, "sent", totals);
  const writer = new BlobWriter(ctx, store, (blob, chunks) => journal.announce(blob, chunks));
  for (const part of parts) await pushNewChunks(ctx, part, known, writer, totals, onProgress);
  await writer.finish();
  await publish(journal);
  await journal.close();
}

function revisionToPush({ paths }: Context, { template, revision }: PushRequest): StoredRevision {
  if (revision !== undefined) {
    return readRevision(paths, template, revisionOf(template, listRevisions(paths, template), revision));
  }
  const current = currentRevision(paths, template);
  if (current) return current;
  throw new MvmError("NOT_BUILT", `template ${template} was never built`, {
    hint: `build it: mvmctl template build ${template} --snapshot`,
  });
}

/** Those whose files are what was captured; a damaged one is left out, and said so. */
async function snapshotsToPush(ctx: Context, name: TemplateName, revision: StoredRevision): Promise<StoredSnapshot[]> {
  const leaveOut = (key: string, why: string) =>
    ctx.report({ kind: "note", text: `the snapshot ${key} is damaged and is not pushed: ${why}` });
  const whole = [];
  for (const stored of readSnapshots(ctx.paths.snapshots(name, revision.id), leaveOut)) {
    const damage = await damageOf(stored, ctx.signal);
    if (damage === undefined) whole.push(stored);
    else leaveOut(stored.key, damage);
  }
  return whole;
}

async function filesOfImage(ctx: Context, { directory, manifest }: StoredRevision): Promise<FilesToPush> {
  return await filesIn(ctx, directory, artifactsOf(manifest), LEVELS.image);
}

async function filesOfSnapshot(ctx: Context, { directory, snapshot }: StoredSnapshot): Promise<FilesToPush> {
  return await filesIn(ctx, directory, filesOf(snapshot), LEVELS.memory);
}

async function filesIn(
  ctx: Context,
  directory: string,
  digests: readonly FileDigest[],
  level: number,
): Promise<FilesToPush> {
  const index = await ensureChunkIndex(directory, digests, ctx.signal);
  for (const { file, sha256 } of digests) {
    if (index[file]?.sha256 === sha256) continue;
    throw new MvmError("ARTIFACT_DAMAGED", `${join(directory, file)} is not what was built: its SHA-256 differs`, {
      hint: "build it again with --force, or take it from a registry: mvmctl template verify NAME --repair",
    });
  }
  return { directory, digests, index, level };
}

type RecordedFiles = ReturnType<typeof describeFiles>;

function revisionRecord(
  { id, directory, manifest, build }: StoredRevision,
  builtAt: string,
  content: RecordedFiles,
): ContentRecord {
  const flake = build?.flake;
  return {
    version: 1,
    kind: "revision",
    template: manifest.template,
    revision: id,
    architecture: manifest.architecture,
    builtAt,
    // A path means nothing elsewhere, and is nobody's business; what stands for a flake in a pulled template is none.
    ...(flake && !flake.startsWith("/") && flake !== flakeOfRegistry(manifest.template) ? { flake } : {}),
    document: readFileSync(join(directory, "manifest.json"), "utf8"),
    chunkBytes: CHUNK_BYTES,
    ...content,
    signatures: [],
  };
}

function snapshotRecord(
  { id, manifest }: StoredRevision,
  { key, directory }: StoredSnapshot,
  content: RecordedFiles,
): ContentRecord {
  return {
    version: 1,
    kind: "snapshot",
    template: manifest.template,
    revision: id,
    architecture: manifest.architecture,
    key,
    document: readFileSync(join(directory, "snapshot.json"), "utf8"),
    chunkBytes: CHUNK_BYTES,
    ...content,
    signatures: [],
  };
}

function tagRecord(template: TemplateName, tag: string, revision: RevisionId, builtAt: string): TagRecord {
  return {
    version: 1,
    kind: "tag",
    template,
    tag,
    revision,
    builtAt,
    movedAt: new Date().toISOString(),
    signatures: [],
  };
}

function signTag(tag: TagRecord, { signingKey }: PushRequest): TagRecord {
  return signingKey ? { ...tag, signatures: [signText(tagToSign(tag), signingKey)] } : tag;
}
