import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Context } from "../core/context.ts";
import { allocatedBytes } from "../core/disk-usage.ts";
import { readDocument, writeDocument } from "../core/documents.ts";
import { fileError, isErrno, MvmError, messageOf } from "../core/errors.ts";
import { acquireLock } from "../core/locks.ts";
import { isName, type RevisionId, type TemplateName } from "../core/names.ts";
import { nearest } from "../core/nearest.ts";
import type { Paths } from "../core/paths.ts";
import type { HypervisorIdentity } from "../hypervisor/driver.ts";
import { pendingChanges } from "./pending-changes.ts";
import type { Manifest } from "./revision.ts";
import { currentRevisionId, listRevisions, type StoredRevision } from "./revisions.ts";
import { readSnapshots, type StoredSnapshot } from "./snapshots.ts";
import { TEMPLATE_DEFAULTS, type TemplateSettings, type TemplateSpec, TemplateSpecDocument } from "./spec.ts";

/** How long a short change (edit, rollback, delete) waits for another command that has the template. */
const SHORT_WAIT_MS = 10_000;

/**
 * Does something to a template while no other command does. Whoever has it is named in a note, and in the error.
 * @throws MvmError `LOCKED`
 */
export async function withTemplateLock<T>(
  ctx: Context,
  name: TemplateName,
  purpose: string,
  use: () => T | Promise<T>,
  timeoutMs = SHORT_WAIT_MS,
): Promise<T> {
  await using _lock = await acquireLock(ctx.paths.template(name), {
    purpose,
    timeoutMs,
    signal: ctx.signal,
    onWait: (holder) => ctx.report({ kind: "note", text: `waiting for ${holder}` }),
  });
  return await use();
}

/** @throws MvmError `TEMPLATE_NOT_FOUND`, `CORRUPT_FILE`, `NEWER_VERSION` */
export function loadSpec(paths: Paths, name: TemplateName): TemplateSpec {
  const path = paths.templateSpec(name);
  const spec = readDocument(TemplateSpecDocument, path);
  if (spec?.name === name) return spec;
  if (!spec && !existsSync(paths.template(name))) throw templateNotFound(paths, name);
  const why = spec ? `it is the template '${spec.name}', in the directory of '${name}'` : "it is missing";
  throw new MvmError("CORRUPT_FILE", `the template ${path} is damaged: ${why}`, {
    hint: `restore the file from a backup, or remove what is left: mvmctl template delete ${name}`,
  });
}

/** A template's settings; the defaults for one that is not on this machine. @throws MvmError `CORRUPT_FILE` */
export function settingsOf(paths: Paths, name: TemplateName): Omit<TemplateSettings, "flake"> {
  return existsSync(paths.template(name)) ? loadSpec(paths, name) : TEMPLATE_DEFAULTS;
}

/** The error for a name that no template has, with the one that was probably meant. */
export function templateNotFound(paths: Paths, name: TemplateName): MvmError {
  const near = nearest(name, templateNames(paths));
  return new MvmError("TEMPLATE_NOT_FOUND", `there is no template '${name}'`, {
    hint: near
      ? `did you mean '${near}'? \`mvmctl template list\` shows what there is`
      : `make it: mvmctl template create ${name} --flake PATH, or mvmctl template init ${name} --local`,
  });
}

/** Replaces template.json atomically. The template's directory has to be there. */
export function saveSpec(paths: Paths, spec: TemplateSpec): void {
  writeDocument(TemplateSpecDocument, paths.templateSpec(spec.name as TemplateName), spec);
}

/** Names of the directories that are templates, whole or broken, in alphabetical order. */
export function templateNames(paths: Paths): TemplateName[] {
  try {
    const entries = readdirSync(paths.templates, { withFileTypes: true });
    return entries
      .filter((entry) => isName(entry.name) && !entry.isFile())
      .map((entry) => entry.name as TemplateName)
      .sort();
  } catch (error) {
    if (isErrno(error, "ENOENT")) return [];
    throw fileError(error, paths.templates, "read the directory");
  }
}

/** A template as a list shows it: what is in three small files, so that thousands are listed at once. */
export type TemplateEntry =
  | {
      readonly name: TemplateName;
      readonly state: "ok";
      readonly spec: TemplateSpec;
      /** Undefined before the first build. */
      readonly current: RevisionId | undefined;
      /** Keys of the current revision's snapshots. */
      readonly snapshots: readonly string[];
    }
  | { readonly name: TemplateName; readonly state: "broken"; readonly reason: string };

/** All templates by name. One that can't be read is listed as broken and harms no other. */
export function listTemplates(paths: Paths): TemplateEntry[] {
  return templateNames(paths).map((name) => {
    try {
      return { name, state: "ok", spec: loadSpec(paths, name), ...currentState(paths, name) };
    } catch (error) {
      return { name, state: "broken", reason: messageOf(error) };
    }
  });
}

function currentState(paths: Paths, name: TemplateName): { current: RevisionId | undefined; snapshots: string[] } {
  const current = currentRevisionId(paths, name);
  if (!current) return { current, snapshots: [] };
  try {
    return { current, snapshots: readdirSync(paths.snapshots(name, current)).filter(isName).sort() };
  } catch (error) {
    if (!isErrno(error, "ENOENT")) throw error;
    return { current: existsSync(paths.revision(name, current)) ? current : undefined, snapshots: [] };
  }
}

export interface SnapshotInfo {
  readonly key: string;
  /** What a host must have to restore it. */
  readonly hypervisor: HypervisorIdentity;
  /** RFC 3339, UTC. */
  readonly createdAt: string;
  readonly memoryBytes: number;
  /** Less than `memoryBytes`: what the guest never touched is a hole. */
  readonly memoryBytesOnDisk: number;
  /** Milliseconds from starting the captured VM to its being healthy. */
  readonly healthyMs: number;
}

export type RevisionInfo =
  | {
      readonly id: RevisionId;
      readonly broken?: undefined;
      /** RFC 3339, UTC; absent where the revision was not built on this machine. */
      readonly builtAt?: string;
      /** The flake's package that was built. */
      readonly package: string;
      readonly settings: Manifest["spec"];
      readonly artifacts: readonly { readonly role: string; readonly file: string; readonly size: number }[];
      readonly snapshots: readonly SnapshotInfo[];
      readonly brokenSnapshots: readonly { readonly key: string; readonly reason: string }[];
    }
  | { readonly id: RevisionId; readonly broken: string };

export interface TemplateInfo {
  readonly spec: TemplateSpec;
  readonly current?: RevisionId;
  /** The newest first; broken ones at the end. */
  readonly revisions: readonly RevisionInfo[];
  /** Settings that a build would bring into effect: "mem: 1024 MiB now, 512 MiB in the current revision". */
  readonly pendingChanges: readonly string[];
}

/** Everything that is known about a template. @throws MvmError `TEMPLATE_NOT_FOUND`, `CORRUPT_FILE` */
export function templateInfo(paths: Paths, name: TemplateName): TemplateInfo {
  const spec = loadSpec(paths, name);
  const broken: RevisionInfo[] = [];
  const revisions = listRevisions(paths, name, (id, why) => broken.push({ id: id as RevisionId, broken: why }));
  const currentId = currentRevisionId(paths, name);
  const current = revisions.find(({ id }) => id === currentId);
  return {
    spec,
    ...(current ? { current: current.id } : {}),
    revisions: [...revisions.map(revisionInfo), ...broken],
    pendingChanges: current ? pendingChanges(spec, current) : [],
  };
}

function revisionInfo({ id, directory, manifest, build }: StoredRevision): RevisionInfo {
  const brokenSnapshots: { key: string; reason: string }[] = [];
  const onBroken = (key: string, reason: string) => void brokenSnapshots.push({ key, reason });
  const stored = readSnapshots(join(directory, "snapshots"), onBroken);
  const snapshots = stored.flatMap((snapshot) => snapshotInfo(snapshot, onBroken) ?? []);
  return {
    id,
    ...(build ? { builtAt: build.builtAt } : {}),
    package: manifest.package,
    settings: manifest.spec,
    artifacts: Object.entries(manifest.artifacts).flatMap(([role, digest]) =>
      digest ? [{ role, file: digest.file, size: digest.size }] : [],
    ),
    snapshots,
    brokenSnapshots,
  };
}

function snapshotInfo(
  { key, directory, snapshot }: StoredSnapshot,
  onBroken: (key: string, reason: string) => void,
): SnapshotInfo | undefined {
  const { hypervisor, createdAt, healthyMs, files } = snapshot;
  const found = statSync(join(directory, files.memory.file), { throwIfNoEntry: false });
  if (found?.size !== files.memory.size) {
    onBroken(
      key,
      found === undefined
        ? `${files.memory.file} is missing`
        : `${files.memory.file} has ${found.size} bytes instead of ${files.memory.size}`,
    );
    return undefined;
  }
  return {
    key,
    hypervisor,
    createdAt,
    memoryBytes: files.memory.size,
    memoryBytesOnDisk: allocatedBytes(found),
    healthyMs,
  };
}
