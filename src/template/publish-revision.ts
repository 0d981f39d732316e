import { existsSync, linkSync, statSync } from "node:fs";
import { join } from "node:path";
import { type FileIndex, indexFile } from "../core/chunks.ts";
import type { Context } from "../core/context.ts";
import { copySparse } from "../core/copy.ts";
import { sha256 } from "../core/digests.ts";
import { requireSpace } from "../core/disk-space.ts";
import { renderDocument, writeDocument } from "../core/documents.ts";
import {
  ensureDirectory,
  makeReadOnly,
  READ_ONLY,
  renameUnlessTaken,
  replaceSymlink,
  syncDirectory,
  syncFile,
  writeFileAtomic,
} from "../core/files.ts";
import type { RevisionId, TemplateName } from "../core/names.ts";
import { MiB } from "../core/sizes.ts";
import { makeStagingDirectory } from "../core/staging.ts";
import type { Image } from "../nix/image.ts";
import { writeChunkIndex } from "./chunk-index.ts";
import { BuildRecordDocument, digestOf, type FileDigest, type Manifest } from "./revision.ts";
import { listRevisions, readRevision, type StoredRevision } from "./revisions.ts";
import type { TemplateSpec } from "./spec.ts";

export interface BuiltImage {
  readonly spec: TemplateSpec;
  readonly package: string;
  readonly architecture: string;
  readonly storePath: string;
  readonly image: Image;
  readonly fingerprint: string;
  readonly durationMs: number;
}

const SPARE_BYTES = 8 * MiB;

/**
 * Copies what Nix built into a revision and makes it the current one. Files that an earlier revision has already are
 * linked, not copied. An image equal to an existing revision's is that revision.
 */
export async function publishRevision(ctx: Context, name: TemplateName, built: BuiltImage): Promise<StoredRevision> {
  const { paths } = ctx;
  const revisions = paths.revisions(name);
  ensureDirectory(revisions);
  const sources = sourcesOf(built.image);
  requireSpace(
    revisions,
    sources.reduce((sum, { path }) => sum + statSync(path).size, SPARE_BYTES),
    "the revision",
  );
  using staging = makeStagingDirectory(revisions, "revision");
  const known = knownFiles(ctx, name);
  const digests = new Map<string, FileDigest>();
  const index: Record<string, FileIndex> = {};
  for (const { role, file, path } of sources) {
    const taken = await take(path, join(staging.path, file), known, ctx.signal);
    index[file] = taken;
    digests.set(role, digestOf(file, taken));
  }
  const manifest = manifestOf(built, digests);
  const text = renderDocument(manifest);
  const id = sha256(text) as RevisionId;
  const directory = paths.revision(name, id);
  if (!existsSync(directory)) {
    writeFileAtomic(join(staging.path, "manifest.json"), text, { mode: READ_ONLY });
    writeChunkIndex(staging.path, index);
    ensureDirectory(join(staging.path, "snapshots"));
    syncDirectory(staging.path);
    renameUnlessTaken(staging.path, directory);
    syncDirectory(revisions);
  }
  const { fingerprint, storePath, durationMs } = built;
  writeDocument(BuildRecordDocument, join(directory, "build.json"), {
    builtAt: new Date().toISOString(),
    durationMs,
    flake: built.spec.flake,
    fingerprint,
    storePath,
  });
  replaceSymlink(paths.current(name), join("revisions", id));
  return readRevision(paths, name, id);
}

function sourcesOf(image: Image): { role: string; file: string; path: string }[] {
  return [
    { role: "kernel", file: image.kernel.endsWith("bzImage") ? "bzImage" : "vmlinux", path: image.kernel },
    ...(image.initrd ? [{ role: "initrd", file: "initrd", path: image.initrd }] : []),
    { role: "rootfs", file: `rootfs.${image.rootfsType}`, path: image.rootfs },
  ];
}

/** Files of this template's revisions, by digest. */
function knownFiles(ctx: Context, name: TemplateName): Map<string, string> {
  const known = new Map<string, string>();
  for (const { directory, manifest } of listRevisions(ctx.paths, name)) {
    for (const digest of Object.values(manifest.artifacts)) {
      if (digest) known.set(digest.sha256, join(directory, digest.file));
    }
  }
  return known;
}

async function take(
  from: string,
  to: string,
  known: ReadonlyMap<string, string>,
  signal: AbortSignal,
): Promise<FileIndex> {
  const index = await indexFile(from, signal);
  const twin = known.get(index.sha256);
  if (!twin || !linkIfSame(twin, to, index.size)) {
    await copySparse(from, to, signal);
    makeReadOnly(to);
    syncFile(to);
  }
  return index;
}

/** False where the file is not what it should be, or can't be linked: a copy does as well, and takes more space. */
function linkIfSame(twin: string, to: string, size: number): boolean {
  try {
    if (statSync(twin).size !== size) return false;
    linkSync(twin, to);
    return true;
  } catch {
    return false;
  }
}

function manifestOf(built: BuiltImage, digests: ReadonlyMap<string, FileDigest>): Manifest {
  const { profile, role, cpus, memMiB, dataDiskMiB, name } = built.spec;
  const initrd = digests.get("initrd");
  return {
    version: 1,
    template: name,
    architecture: built.architecture,
    spec: { profile, role, cpus, memMiB, dataDiskMiB },
    package: built.package,
    artifacts: { kernel: digests.get("kernel")!, ...(initrd ? { initrd } : {}), rootfs: digests.get("rootfs")! },
    image: {
      rootfsType: built.image.rootfsType,
      kernelCommandLine: built.image.kernelCommandLine,
      agent: built.image.agent,
    },
  };
}
