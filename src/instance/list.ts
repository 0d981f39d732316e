import type { Context } from "../core/context.ts";
import { sweepStaging } from "../core/staging.ts";
import { endLeftoverVms } from "./leftover-vms.ts";
import type { InstanceStatus } from "./record.ts";
import { isUp, readInstances } from "./records.ts";

/** All instances, by name, each as it is now. What a killed command left half-made is removed, and the VM it left running ended. */
export function listInstances({ paths }: Context): InstanceStatus[] {
  sweepStaging(paths.instances);
  endLeftoverVms(paths);
  return readInstances(paths);
}

/** Names of the instances of a template that run, or will in a moment. */
export function runningInstancesOf(ctx: Context, template: string): string[] {
  return readInstances(ctx.paths)
    .filter(isUp)
    .filter(({ record }) => record.template === template)
    .map(({ name }) => name);
}

/** Ids of the revisions that a template's instances have: those that ended may be started again. */
export function revisionsOfInstances(ctx: Context, template: string): string[] {
  return readInstances(ctx.paths).flatMap((status) =>
    "record" in status && status.record.template === template ? [status.record.revision] : [],
  );
}
