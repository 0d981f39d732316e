import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { CHUNK_BYTES } from "../core/chunks.ts";
import type { Context } from "../core/context.ts";
import { writeDocument } from "../core/documents.ts";
import {
  ensureDirectory,
  makeReadOnly,
  READ_ONLY,
  replaceSymlink,
  syncDirectory,
  writeFileAtomic,
} from "../core/files.ts";
import type { RevisionId, TemplateName } from "../core/names.ts";
import { makeStagingDirectory } from "../core/staging.ts";
import { writeChunkIndex } from "../template/chunk-index.ts";
import { BuildRecordDocument } from "../template/revision.ts";
import { writeGuard } from "../template/snapshots.ts";
import { type TemplateSpec, TemplateSpecDocument } from "../template/spec.ts";
import type { ContentRecord, RemoteRevision, RemoteSnapshot, TagRecord } from "./records.ts";
import { rememberTag } from "./seen-tags.ts";
import type { Store } from "./store.ts";

export interface Pulled {
  readonly name: TemplateName;
  readonly remote: RemoteRevision;
  /** By which it was chosen. */
  readonly tag: TagRecord | undefined;
  /** Where the fetched files are; undefined if nothing was. */
  readonly directory: string | undefined;
  /** Fetched: the revision, and these snapshots. */
  readonly revision: RemoteRevision | undefined;
  readonly snapshots: readonly RemoteSnapshot[];
}

/** Makes what was fetched visible, with one rename, and the revision the current one. */
export async function publishPulled(ctx: Context, store: Store, pulled: Pulled): Promise<void> {
  const { name, remote, tag, directory } = pulled;
  const { paths } = ctx;
  const id = remote.record.revision as RevisionId;
  if (directory) {
    removeUnwanted(directory, pulled);
    for (const snapshot of pulled.snapshots) sealSnapshot(join(directory, "snapshots", snapshot.record.key), snapshot);
    if (pulled.revision) sealRevision(store, directory, pulled.revision, tag);
  }
  if (!existsSync(paths.templateSpec(name))) {
    publishTemplate(ctx, store, pulled, id);
    return;
  }
  if (directory && pulled.revision) {
    ensureDirectory(paths.revisions(name));
    renameSync(directory, paths.revision(name, id));
    syncDirectory(paths.revisions(name));
  } else if (directory) {
    for (const { record } of pulled.snapshots) {
      const target = join(paths.snapshots(name, id), record.key);
      rmSync(target, { recursive: true, force: true }); // a damaged one
      renameSync(join(directory, "snapshots", record.key), target);
    }
    syncDirectory(paths.snapshots(name, id));
    rmSync(directory, { recursive: true, force: true });
  }
  replaceSymlink(paths.current(name), join("revisions", id));
  if (tag) rememberTag(paths, name, store, tag);
}

/** A template that was not here: its whole directory appears at once. */
function publishTemplate(
  { paths }: Context,
  store: Store,
  { name, remote, tag, directory }: Pulled,
  id: RevisionId,
): void {
  using staging = makeStagingDirectory(paths.templates, name);
  mkdirSync(join(staging.path, "revisions"));
  writeDocument(TemplateSpecDocument, join(staging.path, "template.json"), specOf(name, remote));
  symlinkSync(join("revisions", id), join(staging.path, "current"));
  if (tag) rememberTag(paths, name, store, tag, staging.path);
  renameSync(directory!, join(staging.path, "revisions", id));
  syncDirectory(join(staging.path, "revisions"));
  syncDirectory(staging.path);
  // A directory that is there without a template.json is what is left of a broken one; its revisions stay where they are.
  renameSync(staging.path, paths.template(name));
  syncDirectory(paths.templates);
}

/** An earlier pull that was broken off may have wanted more than this one: what this one did not check is not published. */
function removeUnwanted(directory: string, { revision, snapshots }: Pulled): void {
  const keep = new Set(snapshots.length > 0 ? ["snapshots"] : []);
  for (const { file } of revision?.record.files ?? []) keep.add(file);
  removeAllBut(directory, keep);
  if (snapshots.length === 0) return;
  removeAllBut(join(directory, "snapshots"), new Set(snapshots.map(({ record }) => record.key)));
  for (const { record } of snapshots)
    removeAllBut(join(directory, "snapshots", record.key), new Set(record.files.map(({ file }) => file)));
}

function removeAllBut(directory: string, keep: ReadonlySet<string>): void {
  for (const entry of readdirSync(directory))
    if (!keep.has(entry)) rmSync(join(directory, entry), { recursive: true, force: true });
}

function sealRevision(store: Store, directory: string, { record }: RemoteRevision, tag: TagRecord | undefined): void {
  mkdirSync(join(directory, "snapshots"), { recursive: true });
  syncDirectory(join(directory, "snapshots"));
  seal(directory, record);
  writeFileAtomic(join(directory, "manifest.json"), record.document, { mode: READ_ONLY });
  writeDocument(BuildRecordDocument, join(directory, "build.json"), {
    // The tag's is signed, and is what a later push of this revision is compared with.
    builtAt: tag?.builtAt ?? record.builtAt,
    flake: record.flake ?? flakeOfRegistry(record.template),
    pulledFrom: store.description,
  });
  syncDirectory(directory);
}

function sealSnapshot(directory: string, { record, snapshot }: RemoteSnapshot): void {
  seal(directory, record);
  writeFileAtomic(join(directory, "snapshot.json"), record.document);
  // Its digests were just found right.
  writeGuard(directory, snapshot);
  syncDirectory(directory);
}

function seal(directory: string, record: ContentRecord): void {
  for (const { file } of record.files) makeReadOnly(join(directory, file));
  if (record.chunkBytes !== CHUNK_BYTES) return;
  const files = record.files.map(({ file, size, sha256, chunks }) => [
    file,
    { size, sha256, chunks: chunks.map((chunk) => (typeof chunk === "number" ? chunk : chunk[0])) },
  ]);
  writeChunkIndex(directory, Object.fromEntries(files));
}

/** The template as this machine knows it from now on. Where its flake is on another machine is not known here. */
function specOf(name: TemplateName, { record, manifest }: RemoteRevision): TemplateSpec {
  return {
    version: 1,
    name,
    flake: record.flake ?? flakeOfRegistry(name),
    ...manifest.spec,
    createdAt: new Date().toISOString(),
  };
}

/** Stands where a flake would, in a template that was pulled without one that can be reached from here. */
export function flakeOfRegistry(name: string): string {
  return `registry:${name}`;
}
