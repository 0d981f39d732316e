import { join } from "node:path";
import { isAlive } from "../core/process-identity.ts";
import type { AgentClient } from "../guest/agent-client.ts";
import type { Driver, SnapshotFiles, VmConfig, VmRef } from "../hypervisor/driver.ts";
import type { StoredSnapshot } from "../template/snapshots.ts";
import { vmConfigOf } from "../template/vm-config.ts";
import { provideDataDisk } from "./data-disk.ts";
import { writeRecord } from "./records.ts";
import type { RunRequest, Starting } from "./run-request.ts";

/** A greeting may wait for the hypervisor to load: a tenth of a second, and ten times that where many are started at once. */
const REPEAT_AFTER_MS = 1000;

/** A VM that runs, and a connection to its agent. */
interface Contact {
  readonly vm: VmRef;
  readonly client: AgentClient;
}

/** Starts the VM as planned, and connects to its agent. @throws MvmError as Driver.restore and boot, and AgentClient.open */
export function startAndConnect(starting: Starting, deadlineMs: number): Promise<Contact> {
  return (starting.plan.start === "restored" ? restore : boot)(starting, deadlineMs);
}

async function boot(starting: Starting, deadlineMs: number): Promise<Contact> {
  const { ctx, driver, directory } = starting;
  const { bootAndConnect } = await import("../guest/first-contact.ts");
  const onRetry = (text: string) => ctx.report({ kind: "note", text });
  return await bootAndConnect({
    boot: () => startVm(starting),
    driver,
    directory,
    deadlineMs,
    signal: ctx.signal,
    onRetry,
  });
}

/** Connects while the hypervisor loads: it takes as long, and a greeting waits in the agent's port for the guest to run. */
async function restore(starting: Starting, deadlineMs: number): Promise<Contact> {
  const isPort = starting.driver.agentEndpoint(starting.directory).kind === "ports";
  const givenUp = new AbortController();
  let connecting: Promise<AgentClient> | undefined;
  try {
    const vm = await startVm(starting, (vm) => {
      // Nobody listens behind a vsock before the guest runs.
      if (!isPort) return;
      connecting = connect(starting, vm, deadlineMs, givenUp.signal);
      connecting.catch(() => {});
    });
    return { vm, client: await (connecting ?? connect(starting, vm, deadlineMs)) };
  } catch (error) {
    givenUp.abort();
    await connecting?.then((client) => client[Symbol.asyncDispose]()).catch(() => {});
    throw error;
  }
}

/** With `givenUp`, before the guest runs. */
async function connect(
  { ctx, driver, directory }: Starting,
  vm: VmRef,
  deadlineMs: number,
  givenUp?: AbortSignal,
): Promise<AgentClient> {
  const { AgentClient } = await import("../guest/agent-client.ts");
  const checkAlive = () => {
    if (!isAlive(vm.process)) throw driver.explainEnd(directory);
  };
  const early = givenUp && {
    signal: AbortSignal.any([ctx.signal, givenUp]),
    repeatAfterMs: REPEAT_AFTER_MS,
  };
  const options = { deadlineMs, signal: ctx.signal, checkAlive, ...early };
  return await AgentClient.open(driver.agentEndpoint(directory), options);
}

/** Restores or boots, as planned; the record then names the hypervisor's process. `onStarted` as in StartOptions. */
export async function startVm(starting: Starting, onStarted?: (vm: VmRef) => void): Promise<VmRef> {
  const { ctx, plan, driver, directory, revision, sizes, request, record } = starting;
  const dataDisk = await provideDataDisk(ctx, plan, directory, sizes.dataDiskMiB);
  const config = vmConfigOf(revision, { directory, dataDisk, ports: request.ports }, sizes);
  const options = {
    dieWithParent: request.dieWithParent ?? false,
    onStarted,
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
