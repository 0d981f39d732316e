import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { chunkCount, type FileIndex, forEachChunk, indexFile } from "../core/chunks.ts";
import { monotonicMs } from "../core/clock.ts";
import type { Context } from "../core/context.ts";
import { sha256File } from "../core/digests.ts";
import type { RevisionId, TemplateName } from "../core/names.ts";
import { readChunkIndex } from "../template/chunk-index.ts";
import { artifactsOf, type FileDigest } from "../template/revision.ts";
import { listRevisions, type StoredRevision } from "../template/revisions.ts";
import { revisionOf } from "../template/rollback.ts";
import { filesOf, readSnapshots } from "../template/snapshots.ts";
import { loadSpec } from "../template/store.ts";

/** A file that is not what its manifest says. */
export interface Damage {
  readonly revision: RevisionId;
  /** The snapshot it belongs to, if it does not belong to the revision itself. */
  readonly snapshot?: string;
  readonly file: string;
  readonly path: string;
  readonly reason: string;
  /** The chunks that were altered, where that is known: 256 KiB each, counted from 0. */
  readonly chunks?: readonly number[];
}

export interface VerifyOutcome {
  readonly template: TemplateName;
  readonly revisions: number;
  readonly files: number;
  /** Bytes that were checked, holes included. */
  readonly bytes: number;
  readonly damage: readonly Damage[];
  readonly durationMs: number;
}

/**
 * Reads every file of a template's revisions and snapshots, or of one revision, and compares it with its manifest.
 * @throws MvmError `TEMPLATE_NOT_FOUND`, `REVISION_NOT_FOUND`
 */
export async function verifyTemplate(ctx: Context, name: TemplateName, revision?: string): Promise<VerifyOutcome> {
  const started = monotonicMs();
  loadSpec(ctx.paths, name);
  const damage: Damage[] = [];
  const onBroken = (id: string, reason: string) => {
    const directory = ctx.paths.revision(name, id as RevisionId);
    damage.push({ revision: id as RevisionId, file: "manifest.json", path: join(directory, "manifest.json"), reason });
  };
  const all = listRevisions(ctx.paths, name, onBroken);
  const id = revision === undefined ? undefined : revisionOf(name, all, revision);
  const revisions = id === undefined ? all : all.filter((one) => one.id === id);
  let files = 0;
  let bytes = 0;
  for (const { of, directory, digests } of revisions.flatMap((one) => partsOf(ctx, name, one, damage))) {
    for (const digest of digests) {
      ctx.report({ kind: "detail", text: `reading ${digest.file}` });
      const found = await damageOfFile(directory, digest, ctx.signal);
      if (found) damage.push({ ...of, file: digest.file, path: join(directory, digest.file), ...found });
      files++;
      bytes += digest.size;
    }
  }
  return { template: name, revisions: revisions.length, files, bytes, damage, durationMs: monotonicMs() - started };
}

interface Part {
  readonly of: Pick<Damage, "revision" | "snapshot">;
  readonly directory: string;
  readonly digests: readonly FileDigest[];
}

function partsOf(
  ctx: Context,
  name: TemplateName,
  { id, directory, manifest }: StoredRevision,
  damage: Damage[],
): Part[] {
  const snapshots = readSnapshots(ctx.paths.snapshots(name, id), (key, reason) => {
    const path = join(ctx.paths.snapshots(name, id), key, "snapshot.json");
    damage.push({ revision: id, snapshot: key, file: "snapshot.json", path, reason });
  });
  return [
    { of: { revision: id }, directory, digests: artifactsOf(manifest) },
    ...snapshots.map((stored) => ({
      of: { revision: id, snapshot: stored.key },
      directory: stored.directory,
      digests: filesOf(stored.snapshot),
    })),
  ];
}

async function damageOfFile(
  directory: string,
  digest: FileDigest,
  signal: AbortSignal,
): Promise<Pick<Damage, "reason" | "chunks"> | undefined> {
  const path = join(directory, digest.file);
  if (!existsSync(path)) return { reason: "it is missing" };
  const { size } = statSync(path);
  if (size !== digest.size) return { reason: `it has ${size} bytes instead of ${digest.size}` };
  const sha256 = await sha256File(path, signal);
  if (sha256 === digest.sha256) return undefined;
  const reason = `its SHA-256 is ${sha256} instead of ${digest.sha256}`;
  const expected = readChunkIndex(directory, [digest])[digest.file];
  return expected ? { reason, chunks: differingChunks(expected, await indexFile(path, signal)) } : { reason };
}

/** Positions at which two files of one size differ. Exported for its test. */
export function differingChunks(expected: FileIndex, found: FileIndex): number[] {
  const digests = (index: FileIndex) => {
    const list = new Array<string | undefined>(chunkCount(index.size));
    forEachChunk(index.chunks, (sha256: string, position) => {
      list[position] = sha256;
    });
    return list;
  };
  const [wanted, has] = [digests(expected), digests(found)];
  return [...wanted.keys()].filter((position) => wanted[position] !== has[position]);
}
