import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Context } from "../core/context.ts";
import { diskUsage } from "../core/disk-usage.ts";
import { renameUnlessTaken, syncDirectory } from "../core/files.ts";
import type { RevisionId, TemplateName } from "../core/names.ts";
import { findVmProcesses, signalProcess } from "../core/process-identity.ts";
import { sweepStaging } from "../core/staging.ts";
import { stagingName } from "../core/staging-name.ts";
import { currentRevisionId, listRevisions, type StoredRevision } from "./revisions.ts";
import { templateNotFound, withTemplateLock } from "./store.ts";

export interface PruneOptions {
  /** How many revisions stay beside the current one and those of instances: the newest. */
  readonly keep: number;
  /** Only say what would be removed. */
  readonly dryRun: boolean;
  /** Ids of the revisions that a template's instances have, running or not. */
  readonly revisionsInUse: (name: TemplateName) => readonly string[];
}

export interface PrunedRevision {
  readonly template: TemplateName;
  readonly revision: RevisionId;
  /** On the disk, of what no other revision has. */
  readonly bytes: number;
}

/**
 * Removes a template's old revisions with their snapshots: neither the current one, nor one that an instance has, nor the
 * newest of the others. Damaged revisions stay, for `verify --repair`.
 * @throws MvmError `TEMPLATE_NOT_FOUND`, `LOCKED` while it is being built, pushed or pulled
 */
export async function pruneTemplate(
  ctx: Context,
  name: TemplateName,
  options: PruneOptions,
): Promise<PrunedRevision[]> {
  const { paths } = ctx;
  return await withTemplateLock(ctx, name, `pruning ${name}`, () => {
    if (!existsSync(paths.template(name))) throw templateNotFound(paths, name);
    sweepStaging(paths.revisions(name));
    const damaged: string[] = [];
    const all = listRevisions(paths, name, (id) => damaged.push(paths.revision(name, id as RevisionId)));
    const inUse = [currentRevisionId(paths, name), ...options.revisionsInUse(name)];
    const old = all.filter(({ id }) => !inUse.includes(id)).slice(options.keep);
    const kept = all.filter((revision) => !old.includes(revision)).map(({ directory }) => directory);
    // What a revision shares with one that stays is not freed, and what several share is freed once.
    const seen = new Set<string>();
    for (const directory of [...kept, ...damaged]) diskUsage(directory, seen);
    return old.flatMap(({ id, directory }) => {
      const pruned = { template: name, revision: id, bytes: diskUsage(directory, seen) };
      const inUseSince = () => options.revisionsInUse(name).includes(id);
      return options.dryRun || removeRevision(paths.revisions(name), { id, directory }, inUseSince) ? [pruned] : [];
    });
  });
}

/** It vanishes with one rename. Says whether it did: an instance that was started meanwhile keeps it. */
function removeRevision(
  revisions: string,
  { id, directory }: Pick<StoredRevision, "id" | "directory">,
  inUseSince: () => boolean,
): boolean {
  // Nobody builds while we have the lock: a VM in here lost its maker.
  for (const stray of findVmProcesses(directory)) signalProcess(stray, "SIGKILL");
  const away = join(revisions, stagingName(id));
  renameUnlessTaken(directory, away);
  if (inUseSince() && renameUnlessTaken(away, directory)) return false;
  syncDirectory(revisions);
  rmSync(away, { recursive: true, force: true });
  return true;
}
