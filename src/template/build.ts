import { existsSync } from "node:fs";
import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import { acquireLock } from "../core/locks.ts";
import { readDocument } from "../core/documents.ts";
import type { TemplateName } from "../core/names.ts";
import { sweepStaging } from "../core/staging.ts";
import type { Driver } from "../hypervisor/driver.ts";
import { findDebianLock, prepareDebianPackages } from "../nix/debian.ts";
import { fingerprintFlake } from "../nix/fingerprint.ts";
import { buildPackage, choosePackage, type Flake, flakeMetadata, libraryOverride, openFlake } from "../nix/flake.ts";
import { findImage } from "../nix/image.ts";
import type { NixOptions } from "../nix/nix.ts";
import { captureSnapshot, memoryOnDisk } from "./capture.ts";
import { type BuiltImage, publishRevision } from "./publish-revision.ts";
import { currentRevision, type StoredRevision } from "./revisions.ts";
import { damageOf, misfits, readSnapshots, type StoredSnapshot } from "./snapshots.ts";
import { type TemplateSpec, TemplateSpecDocument } from "./spec.ts";

/** Another build of the same template is waited for: it most likely makes what this one is about to. */
const LOCK_TIMEOUT_MS = 60 * 60 * 1000;

export interface BuildRequest {
  /** Build even if nothing changed, and capture even if there is a snapshot. */
  readonly force: boolean;
  /** Also capture a snapshot, with this hypervisor. */
  readonly snapshot?: { readonly driver: Driver; readonly timeoutMs: number };
}

export interface BuildOutcome {
  readonly template: TemplateName;
  readonly revision: StoredRevision;
  /** Nothing had changed since the current revision was built. */
  readonly cached: boolean;
  readonly durationMs: number;
  readonly snapshot?: {
    readonly stored: StoredSnapshot;
    /** There was one already. */
    readonly reused: boolean;
    readonly durationMs: number;
    readonly memoryBytesOnDisk: number;
  };
}

/**
 * Builds a template's flake into a revision and makes it current; with `snapshot`, captures one of it too.
 * @throws MvmError `TEMPLATE_NOT_FOUND`, `FLAKE_NOT_FOUND`, `PACKAGE_NOT_FOUND`, `NIX_MISSING`, `NIX_FAILED`,
 *   `IMAGE_INCOMPLETE`, `SNAPSHOT_FAILED`, `DISK_FULL`
 */
export async function buildTemplate(ctx: Context, name: TemplateName, request: BuildRequest): Promise<BuildOutcome> {
  await using _lock = await acquireLock(ctx.paths.template(name), {
    purpose: `building ${name}`,
    timeoutMs: LOCK_TIMEOUT_MS,
    signal: ctx.signal,
    onWait: (holder) => ctx.report({ kind: "note", text: `waiting for ${holder}` }),
  });
  const spec = readDocument(TemplateSpecDocument, ctx.paths.templateSpec(name));
  if (!spec) {
    throw new MvmError("TEMPLATE_NOT_FOUND", `there is no template '${name}'`, {
      hint: `make one: mvmctl template create ${name} --flake PATH, or mvmctl template init ${name} --local`,
    });
  }
  sweepStaging(ctx.paths.template(name));
  sweepStaging(ctx.paths.revisions(name));
  const started = performance.now();
  const { revision, cached } = await buildRevision(ctx, name, spec, request.force);
  const durationMs = performance.now() - started;
  const outcome = { template: name, revision, cached, durationMs };
  if (!request.snapshot) return outcome;
  const snapshot = await ensureSnapshot(ctx, name, revision, request.snapshot, request.force);
  return { ...outcome, snapshot };
}

async function buildRevision(
  ctx: Context,
  name: TemplateName,
  spec: TemplateSpec,
  force: boolean,
): Promise<{ revision: StoredRevision; cached: boolean }> {
  const flake = await openFlake(spec.flake, ctx.signal);
  const { createdAt: _, ...settings } = spec;
  const nix = nixOptions(ctx);
  // A remote flake is unchanged while Nix locks it to the same source; a local one while its files are the same.
  const lockedUrl = flake.directory ? "" : (await flakeMetadata(flake, nix)).lockedUrl;
  const fingerprint = () => fingerprintFlake(flake, { settings, lockedUrl }, ctx.signal);
  const current = currentRevision(ctx.paths, name);
  if (!force && current?.build?.fingerprint === (await fingerprint())) return { revision: current, cached: true };

  const started = performance.now();
  const built = await buildImage(ctx, spec, flake, nix);
  const durationMs = Math.round(performance.now() - started);
  // Building may write lock files: what counts is how the flake is now.
  const image: BuiltImage = { ...built, spec, fingerprint: await fingerprint(), durationMs };
  ctx.report({ kind: "step", text: "Storing the revision" });
  return { revision: await publishRevision(ctx, name, image), cached: false };
}

async function buildImage(ctx: Context, spec: TemplateSpec, flake: Flake, nix: NixOptions) {
  ctx.report({ kind: "step", text: `Evaluating ${spec.flake}` });
  const offline = hasDebianLock(flake);
  const override = libraryOverride(await flakeMetadata(flake, { ...nix, offline }));
  const choice = await choosePackage(flake, spec, override, { ...nix, offline });
  ctx.report({ kind: "note", text: `package ${choice.name} (${choice.name === spec.role ? "named after the role" : "the profile"})` });
  if (choice.debianPackages) await prepareDebianPackages(ctx, flake, choice.debianPackages);
  ctx.report({ kind: "step", text: "Building the image" });
  const storePath = await buildPackage(flake, choice.name, override, { ...nix, offline: choice.debianPackages !== undefined });
  const architecture = process.arch === "arm64" ? "aarch64" : "x86_64";
  return { package: choice.name, architecture, storePath, image: findImage(storePath) };
}

/** A flake with a lock of Debian packages needs no binary cache. */
function hasDebianLock(flake: Flake): boolean {
  return flake.directory !== undefined && existsSync(findDebianLock(flake.directory));
}

function nixOptions(ctx: Context): NixOptions {
  return {
    env: ctx.env,
    signal: ctx.signal,
    onEvent: (event) => {
      const text = event.kind === "log" ? event.line : `${event.kind === "build" ? "building" : "fetching"} ${event.name}`;
      ctx.report({ kind: "detail", text });
    },
  };
}

async function ensureSnapshot(
  ctx: Context,
  name: TemplateName,
  revision: StoredRevision,
  { driver, timeoutMs }: { driver: Driver; timeoutMs: number },
  force: boolean,
) {
  const started = performance.now();
  const snapshotsDirectory = ctx.paths.snapshots(name, revision.id);
  sweepStaging(snapshotsDirectory);
  const existing = force ? undefined : await usableSnapshot(ctx, snapshotsDirectory, driver);
  const stored = existing ?? (await captureSnapshot(ctx, { revision, snapshotsDirectory, driver, timeoutMs }));
  return {
    stored,
    reused: existing !== undefined,
    durationMs: performance.now() - started,
    memoryBytesOnDisk: memoryOnDisk(stored),
  };
}

/** A snapshot that this host could restore right now. */
async function usableSnapshot(ctx: Context, directory: string, driver: Driver): Promise<StoredSnapshot | undefined> {
  const ours = await driver.probe(ctx.signal);
  for (const stored of readSnapshots(directory)) {
    if (misfits(stored.snapshot.hypervisor, ours).length > 0) continue;
    const damage = await damageOf(stored, ctx.signal);
    if (damage === undefined) return stored;
    ctx.report({ kind: "note", text: `the snapshot ${stored.key} is damaged (${damage}) and is made again` });
  }
  return undefined;
}
