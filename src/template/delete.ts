import { existsSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Context } from "../core/context.ts";
import { fileError, MvmError } from "../core/errors.ts";
import { renameUnlessTaken, syncDirectory } from "../core/files.ts";
import type { TemplateName } from "../core/names.ts";
import { findVmProcesses, signalProcess } from "../core/process-identity.ts";
import { sweepStaging } from "../core/staging.ts";
import { stagingName } from "../core/staging-name.ts";
import { templateNotFound, withTemplateLock } from "./store.ts";

export interface DeleteOptions {
  /** Names of the instances that run from a template, or are about to. */
  readonly instancesOf: (name: TemplateName) => string[];
}

/**
 * Removes a template with its revisions and snapshots, whole or damaged. It vanishes with one rename: who is killed
 * after that leaves a staging entry, which the next command removes.
 * @throws MvmError `TEMPLATE_NOT_FOUND`, `TEMPLATE_IN_USE`, `LOCKED` while it is being built
 */
export async function deleteTemplate(ctx: Context, name: TemplateName, { instancesOf }: DeleteOptions): Promise<void> {
  const { paths } = ctx;
  const directory = paths.template(name);
  sweepStaging(paths.templates);
  await withTemplateLock(ctx, name, `deleting ${name}`, () => {
    if (!existsSync(directory)) throw templateNotFound(paths, name);
    refuseIfUsed(name, instancesOf(name));
    // Nobody builds while we have the lock: a VM in here lost its maker.
    for (const stray of findVmProcesses(directory)) signalProcess(stray, "SIGKILL");
    const away = join(paths.templates, stagingName(name));
    move(directory, away);
    const came = instancesOf(name);
    // Where somebody made a new template of that name in the meantime, the old one is gone for good.
    if (came.length > 0 && renameUnlessTaken(away, directory)) refuseIfUsed(name, came);
    syncDirectory(paths.templates);
    rmSync(away, { recursive: true, force: true });
  });
}

function refuseIfUsed(name: TemplateName, instances: readonly string[]): void {
  if (instances.length === 0) return;
  const verb = instances.length === 1 ? "runs" : "run";
  throw new MvmError("TEMPLATE_IN_USE", `template ${name} is in use: ${instances.join(", ")} ${verb} from it`, {
    hint: `stop what runs first: mvmctl stop ${instances.join(" ")}`,
  });
}

function move(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    throw fileError(error, from, "remove");
  }
}
