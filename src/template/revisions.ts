import { existsSync, readdirSync, readlinkSync } from "node:fs";
import { basename, join } from "node:path";
import { readDocument } from "../core/documents.ts";
import { fileError, isErrno, MvmError, messageOf } from "../core/errors.ts";
import { type RevisionId, shortRevision, type TemplateName } from "../core/names.ts";
import type { Paths } from "../core/paths.ts";
import { type BuildRecord, BuildRecordDocument, type Manifest, ManifestDocument } from "./revision.ts";

/** A revision on this machine. */
export interface StoredRevision {
  readonly id: RevisionId;
  readonly directory: string;
  readonly manifest: Manifest;
  /** Absent where the revision came from a registry. */
  readonly build: BuildRecord | undefined;
}

const REVISION_ID = /^[0-9a-f]{64}$/;

/** @throws MvmError `REVISION_NOT_FOUND`, `CORRUPT_FILE` */
export function readRevision(paths: Paths, name: TemplateName, id: RevisionId): StoredRevision {
  const directory = paths.revision(name, id);
  const manifest = readDocument(ManifestDocument, join(directory, "manifest.json"));
  if (!manifest) {
    throw new MvmError("REVISION_NOT_FOUND", `template ${name} has no revision ${shortRevision(id)}`, {
      hint: `mvmctl template info ${name} lists its revisions`,
    });
  }
  return { id, directory, manifest, build: readDocument(BuildRecordDocument, join(directory, "build.json")) };
}

/** The id that the symlink `current` names, or undefined before the first build. */
export function currentRevisionId(paths: Paths, name: TemplateName): RevisionId | undefined {
  try {
    const id = basename(readlinkSync(paths.current(name)));
    return REVISION_ID.test(id) ? (id as RevisionId) : undefined;
  } catch (error) {
    if (isErrno(error, "ENOENT", "ENOTDIR", "EINVAL")) return undefined;
    throw fileError(error, paths.current(name), "read");
  }
}

/** The current revision, or undefined before the first build. @throws MvmError `CORRUPT_FILE` */
export function currentRevision(paths: Paths, name: TemplateName): StoredRevision | undefined {
  const id = currentRevisionId(paths, name);
  return id && existsSync(paths.revision(name, id)) ? readRevision(paths, name, id) : undefined;
}

/** All revisions, the newest first. Damaged ones are passed to `onBroken`. */
export function listRevisions(
  paths: Paths,
  name: TemplateName,
  onBroken: (id: string, why: string) => void = () => {},
): StoredRevision[] {
  let ids: string[];
  try {
    ids = readdirSync(paths.revisions(name)).filter((entry) => REVISION_ID.test(entry));
  } catch (error) {
    if (isErrno(error, "ENOENT", "ENOTDIR")) return [];
    throw fileError(error, paths.revisions(name), "read the directory");
  }
  const revisions = ids.flatMap((id) => {
    try {
      return [readRevision(paths, name, id as RevisionId)];
    } catch (error) {
      onBroken(id, messageOf(error));
      return [];
    }
  });
  const age = (revision: StoredRevision) => revision.build?.builtAt ?? "";
  return revisions.sort((a, b) => age(b).localeCompare(age(a)) || a.id.localeCompare(b.id));
}
