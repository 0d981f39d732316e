import { join } from "node:path";
import { monotonicMs } from "../core/clock.ts";
import { readConfig } from "../core/config.ts";
import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import type { TemplateName } from "../core/names.ts";
import { sweepStaging } from "../core/staging.ts";
import type { Driver } from "../hypervisor/driver.ts";
import { type DebianOptions, lockDebianPackages, realiseDebianLock } from "../nix/debian.ts";
import type { DebianRequest } from "../nix/debian-lock.ts";
import { fingerprintFlake } from "../nix/fingerprint.ts";
import {
  buildPackage,
  choosePackage,
  type Flake,
  flakeMetadata,
  libraryOverride,
  openFlake,
  showToGit,
} from "../nix/flake.ts";
import { findImage } from "../nix/image.ts";
import type { NixOptions } from "../nix/nix.ts";
import type { NixEvent } from "../nix/nix-log.ts";
import { captureSnapshot, memoryOnDisk } from "./capture.ts";
import { type BuiltImage, publishRevision } from "./publish-revision.ts";
import { currentRevision, type StoredRevision } from "./revisions.ts";
import { damageOf, misfits, readSnapshots, type StoredSnapshot } from "./snapshots.ts";
import type { TemplateSpec } from "./spec.ts";
import { loadSpec, withTemplateLock } from "./store.ts";

/** Another build of the same template is waited for: it most likely makes what this one is about to. */
const LOCK_TIMEOUT_MS = 60 * 60 * 1000;

/** The file beside flake.nix that pins Debian packages. */
const DEBIAN_LOCK = "debian.lock";

export interface BuildRequest {
  /** Build even if nothing changed, and capture even if there is a snapshot. */
  readonly force: boolean;
  /** Machines that build, instead of the configuration's: each as in Nix's `builders`. */
  readonly builders?: readonly string[];
  /** Also capture a snapshot with each of these hypervisors. */
  readonly snapshot?: { readonly drivers: readonly Driver[]; readonly timeoutMs: number };
}

export interface BuildOutcome {
  readonly template: TemplateName;
  readonly revision: StoredRevision;
  /** Nothing had changed since the current revision was built. */
  readonly cached: boolean;
  readonly durationMs: number;
  /** One for each hypervisor that was asked for. */
  readonly snapshots: readonly SnapshotOutcome[];
}

export interface SnapshotOutcome {
  readonly stored: StoredSnapshot;
  /** There was one already. */
  readonly reused: boolean;
  readonly durationMs: number;
  readonly memoryBytesOnDisk: number;
}

/**
 * Builds a template's flake into a revision and makes it current; with `snapshot`, captures one of it too.
 * @throws MvmError `TEMPLATE_NOT_FOUND`, `FLAKE_NOT_FOUND`, `PACKAGE_NOT_FOUND`, `NIX_MISSING`, `NIX_FAILED`,
 *   `IMAGE_INCOMPLETE`, `SNAPSHOT_FAILED`, `DISK_FULL`
 */
export async function buildTemplate(ctx: Context, name: TemplateName, request: BuildRequest): Promise<BuildOutcome> {
  return withTemplateLock(ctx, name, `building ${name}`, () => buildLocked(ctx, name, request), LOCK_TIMEOUT_MS);
}

async function buildLocked(ctx: Context, name: TemplateName, request: BuildRequest): Promise<BuildOutcome> {
  const spec = loadSpec(ctx.paths, name);
  // A hypervisor that is missing should be said before minutes of building, not after.
  for (const driver of request.snapshot?.drivers ?? []) await driver.probe(ctx.signal);
  sweepStaging(ctx.paths.template(name));
  sweepStaging(ctx.paths.revisions(name));
  const started = monotonicMs();
  const { revision, cached } = await buildRevision(ctx, name, spec, request);
  const durationMs = monotonicMs() - started;
  const snapshots: SnapshotOutcome[] = [];
  if (request.snapshot) {
    const { drivers, timeoutMs } = request.snapshot;
    for (const driver of drivers) {
      snapshots.push(await ensureSnapshot(ctx, name, revision, { driver, timeoutMs }, request.force));
    }
  }
  return { template: name, revision, cached, durationMs, snapshots };
}

async function buildRevision(
  ctx: Context,
  name: TemplateName,
  spec: TemplateSpec,
  { force, builders }: BuildRequest,
): Promise<{ revision: StoredRevision; cached: boolean }> {
  const flake = await openFlake(spec.flake, ctx.signal);
  const { createdAt: _, ...settings } = spec;
  const nix = nixOptions(ctx, builders);
  // A remote flake is unchanged while Nix locks it to the same source; a local one while its files are the same.
  const lockedUrl = flake.directory ? "" : (await flakeMetadata(flake, nix)).lockedUrl;
  const fingerprint = () => fingerprintFlake(flake, { settings, lockedUrl }, ctx.signal);
  const current = currentRevision(ctx.paths, name);
  if (!force && current?.build?.fingerprint === (await fingerprint())) return { revision: current, cached: true };

  const started = monotonicMs();
  const built = await buildImage(ctx, spec, flake, nix, fingerprint);
  const durationMs = Math.round(monotonicMs() - started);
  const image: BuiltImage = { ...built, spec, durationMs };
  ctx.report({ kind: "step", text: "Storing the revision" });
  return { revision: await publishRevision(ctx, name, image), cached: false };
}

/** @param fingerprint takes the flake's as it is at that moment */
async function buildImage(
  ctx: Context,
  spec: TemplateSpec,
  flake: Flake,
  nix: NixOptions,
  fingerprint: () => Promise<string>,
) {
  ctx.report({ kind: "step", text: `Evaluating ${spec.flake}` });
  const metadata = await flakeMetadata(flake, nix);
  const override = libraryOverride(metadata);
  const choice = await choosePackage(flake, spec, override, nix);
  ctx.report({
    kind: "note",
    text: `package ${choice.name} (${choice.name === spec.role ? "named after the role" : "the profile"})`,
  });
  if (choice.debianRequest)
    await prepareDebian(ctx, flake, join(metadata.directory, DEBIAN_LOCK), choice.debianRequest);
  ctx.report({ kind: "step", text: "Building the image" });
  // After the lock files were written, which are part of it; before Nix reads the flake: who edits it from here on gets
  // another build.
  const built = await fingerprint();
  // Everything that an image of Debian packages needs is in the store by now: asking a binary cache would only take time.
  const storePath = await buildPackage(flake, choice.name, override, {
    ...nix,
    offline: choice.debianRequest !== undefined,
  });
  const architecture = process.arch === "arm64" ? "aarch64" : "x86_64";
  return { package: choice.name, architecture, storePath, image: findImage(storePath), fingerprint: built };
}

/** Locks and fetches the Debian packages that an image is made of. A remote flake comes with its lock. */
async function prepareDebian(ctx: Context, flake: Flake, lockFile: string, request: DebianRequest): Promise<void> {
  ctx.report({ kind: "step", text: "Fetching Debian packages" });
  const options: DebianOptions = {
    cacheDirectory: join(ctx.paths.cache, "debian"),
    env: ctx.env,
    signal: ctx.signal,
    onProgress: (text) => ctx.report({ kind: "detail", text }),
  };
  if (flake.directory) {
    if (await lockDebianPackages(lockFile, request, options)) ctx.report({ kind: "note", text: `wrote ${lockFile}` });
    if (flake.inGit) await showToGit(flake.directory, DEBIAN_LOCK, ctx.signal);
  }
  try {
    await realiseDebianLock(lockFile, request.image, options);
  } catch (error) {
    // Debian's archive drops a version some weeks after a newer one is out: then the lock can only be renewed.
    const gone = error instanceof MvmError && error.code === "DEBIAN_PACKAGES_GONE";
    if (!gone || !flake.directory) throw error;
    ctx.report({ kind: "note", text: `${error.message}; ${lockFile} is renewed with what there is now` });
    await lockDebianPackages(lockFile, request, { ...options, update: true });
    await realiseDebianLock(lockFile, request.image, options);
  }
}

function nixOptions(ctx: Context, builders?: readonly string[]): NixOptions {
  return {
    settings: { ...readConfig(ctx.paths).nix, ...(builders ? { builders: [...builders] } : {}) },
    env: ctx.env,
    signal: ctx.signal,
    onEvent: (event) => reportNix(ctx, event),
  };
}

function reportNix({ report }: Context, event: NixEvent): void {
  if (event.kind === "builder-failed") return void report({ kind: "note", text: event.why });
  if (event.kind === "build" && event.machine)
    report({ kind: "note", text: `building ${event.name} on ${event.machine}` });
  const text = event.kind === "log" ? event.line : `${event.kind === "build" ? "building" : "fetching"} ${event.name}`;
  report({ kind: "detail", text });
}

async function ensureSnapshot(
  ctx: Context,
  name: TemplateName,
  revision: StoredRevision,
  { driver, timeoutMs }: { driver: Driver; timeoutMs: number },
  force: boolean,
): Promise<SnapshotOutcome> {
  const started = monotonicMs();
  const snapshotsDirectory = ctx.paths.snapshots(name, revision.id);
  sweepStaging(snapshotsDirectory);
  const existing = force ? undefined : await usableSnapshot(ctx, snapshotsDirectory, driver);
  const stored = existing ?? (await captureSnapshot(ctx, { revision, snapshotsDirectory, driver, timeoutMs }));
  return {
    stored,
    reused: existing !== undefined,
    durationMs: monotonicMs() - started,
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
