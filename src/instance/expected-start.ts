import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import type { RevisionId, TemplateName } from "../core/names.ts";
import { chooseDriver } from "../hypervisor/choose.ts";
import { readRevision } from "../template/revisions.ts";
import { readSnapshots } from "../template/snapshots.ts";
import { planStart, type StartPlan } from "./start-plan.ts";

/** How a run of this revision would start here. Undefined where it could not, as no hypervisor works. */
export async function expectedStart(
  ctx: Context,
  template: TemplateName,
  revision: RevisionId,
): Promise<StartPlan | undefined> {
  const snapshots = readSnapshots(ctx.paths.snapshots(template, revision), () => {});
  const { spec } = readRevision(ctx.paths, template, revision).manifest;
  try {
    // What keeps a better hypervisor from being used is for a run to say.
    const driver = await chooseDriver({ ...ctx, report: () => {} });
    const host = await driver.probe(ctx.signal);
    return planStart({ host, snapshots, sizes: spec, cold: false, keptDataDisk: false });
  } catch (error) {
    if (error instanceof MvmError) return undefined;
    throw error;
  }
}
