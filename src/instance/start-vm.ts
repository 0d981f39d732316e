import { join } from "node:path";
import type { Driver, SnapshotFiles, StartOptions, VmConfig, VmRef } from "../hypervisor/driver.ts";
import type { StoredSnapshot } from "../template/snapshots.ts";
import { vmConfigOf } from "../template/vm-config.ts";
import { provideDataDisk } from "./data-disk.ts";
import { writeRecord } from "./records.ts";
import type { RunRequest, Starting } from "./run-request.ts";

/** What is told while it starts, as in StartOptions. */
type Moments = Pick<StartOptions, "onStarted" | "onLoaded">;

/** Restores or boots, as planned; the record then names the hypervisor's process. */
export async function startVm(starting: Starting, moments: Moments = {}): Promise<VmRef> {
  const { ctx, plan, driver, directory, revision, sizes, request, record } = starting;
  const dataDisk = await provideDataDisk(ctx, plan, directory, sizes.dataDiskMiB);
  const config = vmConfigOf(revision, { directory, dataDisk, ports: request.ports }, sizes);
  const options = {
    dieWithParent: request.dieWithParent ?? false,
    ...moments,
    ...(request.jail ? { jail: (await import("./jail.ts")).jailFor(directory, sizes) } : {}),
  };
  const start = (vmConfig: VmConfig) =>
    plan.start === "restored"
      ? driver.restore(vmConfig, snapshotFiles(plan.snapshot), options)
      : driver.boot(vmConfig, options);
  const vm = await (isIsolated(driver, request) ? startIsolated(starting, config, start) : start(config));
  writeRecord(directory, { ...record, process: vm.process });
  return vm;
}

/** Whether the VM gets a network of its own: asked for, or because there is no other. */
export function isIsolated({ capabilities }: Driver, { isolate }: RunRequest): boolean {
  return isolate === true || !capabilities.userNetwork;
}

/** In a network of its own. Loaded when it is needed: a start must not pay for what it does not use. */
async function startIsolated(
  { ctx: { env, signal }, request: { allow } }: Starting,
  config: VmConfig,
  start: (config: VmConfig) => Promise<VmRef>,
): Promise<VmRef> {
  const { startInNetwork } = await import("../host/network.ts");
  return await startInNetwork(config, { env, signal, allow }, start);
}

function snapshotFiles({ directory, snapshot }: StoredSnapshot): SnapshotFiles {
  const { vmstate, memory } = snapshot.files;
  return { vmstate: join(directory, vmstate.file), memory: join(directory, memory.file) };
}
