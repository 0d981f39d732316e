import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import type { InstanceName, TemplateName } from "../core/names.ts";
import { keptDataDiskMiB } from "./data-disk.ts";
import type { InstanceRecord } from "./record.ts";
import { requireInstance } from "./records.ts";
import { runInstance } from "./run.ts";
import type { RunOutcome, RunRequest } from "./run-request.ts";
import { readStartSettings, type StartSettings } from "./start-settings.ts";
import { requireVolume } from "./volumes.ts";

/**
 * Starts a stopped or dead instance again as it was: its template's revision, sizes, ports, variables, directories, network
 * and data disk.
 * @throws MvmError `INSTANCE_NOT_FOUND`, `INSTANCE_RUNNING`, `NO_SETTINGS`, `VOLUME_NOT_FOUND`, and as runInstance
 */
export async function startInstance(
  ctx: Context,
  name: InstanceName,
  options: Pick<RunRequest, "waitFor" | "timeoutMs">,
): Promise<RunOutcome> {
  const status = requireInstance(ctx.paths, name);
  if (status.state === "broken")
    throw new MvmError("CORRUPT_FILE", status.reason, { hint: `remove it: mvmctl rm ${name} --force` });
  if (status.state !== "stopped" && status.state !== "dead") {
    throw new MvmError("INSTANCE_RUNNING", `instance '${name}' is ${status.state}`, {
      hint: status.state === "paused" ? `let it run on: mvmctl resume ${name}` : "`mvmctl ls` shows it",
    });
  }
  const directory = ctx.paths.instance(name);
  const { record } = status;
  const settings = readStartSettings(directory);
  if (!settings) {
    throw new MvmError("NO_SETTINGS", `what instance '${name}' was started with is not known`, {
      hint: `say it again: mvmctl run --template ${record.template} --name ${name}`,
    });
  }
  for (const { hostPath, guestPath } of settings.volumes) requireVolume(hostPath, `${hostPath}:${guestPath}`);
  return await runInstance(ctx, { ...requestOf(record, settings, keptDataDiskMiB(directory)), ...options });
}

function requestOf(
  record: InstanceRecord,
  settings: StartSettings,
  keptMiB: number | undefined,
): Omit<RunRequest, "waitFor" | "timeoutMs"> {
  const { template, revision, name, ports, cpus, memMiB, dataDiskMiB, hypervisor, isolated } = record;
  const { env, volumes, allow, jail, cold } = settings;
  return {
    template: template as TemplateName,
    revision,
    name: name as InstanceName,
    ...{ ports, volumes, env, cpus, memMiB, dataDiskMiB: keptMiB ?? dataDiskMiB },
    hypervisor: hypervisor.name,
    ...{ jail, isolate: isolated === true, allow, cold },
  };
}
