import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { messageOf } from "../core/errors.ts";
import { shortRevision, type TemplateName } from "../core/names.ts";
import type { Paths } from "../core/paths.ts";
import { type Check, ok, warning } from "../host/check.ts";
import { currentRevisionId, listRevisions, type StoredRevision } from "./revisions.ts";
import { damageOf, readSnapshots } from "./snapshots.ts";
import { loadSpec, templateNames } from "./store.ts";

/** Templates whose files are damaged, or in one line that all are whole. One that is damaged harms no other. */
export async function checkTemplates(paths: Paths, signal: AbortSignal): Promise<Check[]> {
  const names = templateNames(paths);
  const damaged: Check[] = [];
  for (const name of names) damaged.push(...(await damagesOf(paths, name, signal)));
  return damaged.length > 0 ? damaged : [ok("templates", names.length === 0 ? "none yet" : `${names.length}, whole`)];
}

async function damagesOf(paths: Paths, name: TemplateName, signal: AbortSignal): Promise<Check[]> {
  const subject = `template ${name}`;
  try {
    loadSpec(paths, name);
    const damaged: Check[] = [];
    const revisions = listRevisions(paths, name, (id, why) => {
      damaged.push(warning(subject, why, rebuild(name, join(paths.revisions(name), id))));
    });
    for (const revision of revisions) damaged.push(...(await damagesOfRevision(name, revision, signal)));
    const current = currentRevisionId(paths, name);
    if (current && !existsSync(paths.revision(name, current))) {
      const mend = revisions.length > 0 ? `mvmctl template rollback ${name}` : `mvmctl template build ${name}`;
      damaged.push(warning(subject, `its current revision ${shortRevision(current)} is missing`, mend));
    }
    return damaged;
  } catch (error) {
    signal.throwIfAborted();
    return [warning(subject, messageOf(error), `mvmctl template delete ${name}, and create it again`)];
  }
}

/** Artifacts are compared by size: only snapshots, which are loaded as they are, are worth reading gigabytes for. */
async function damagesOfRevision(
  name: TemplateName,
  { id, directory, manifest }: StoredRevision,
  signal: AbortSignal,
): Promise<Check[]> {
  const subject = `template ${name}, revision ${shortRevision(id)}`;
  const damaged: Check[] = [];
  const { kernel, initrd, rootfs } = manifest.artifacts;
  for (const { file, size } of initrd ? [kernel, initrd, rootfs] : [kernel, rootfs]) {
    const found = statSync(join(directory, file), { throwIfNoEntry: false })?.size;
    if (found === size) continue;
    const why = found === undefined ? `${file} is missing` : `${file} has ${found} bytes instead of ${size}`;
    damaged.push(warning(subject, why, rebuild(name, directory)));
  }
  const snapshots = join(directory, "snapshots");
  const report = (key: string, why: string) => {
    damaged.push(warning(subject, `snapshot ${key}: ${why}`, rebuild(name, join(snapshots, key))));
  };
  for (const stored of readSnapshots(snapshots, report)) {
    const damage = await damageOf(stored, signal);
    if (damage !== undefined) report(stored.key, damage);
  }
  return damaged;
}

function rebuild(name: TemplateName, directory: string): string {
  return `rm -rf ${directory} && mvmctl template build ${name} --snapshot`;
}
