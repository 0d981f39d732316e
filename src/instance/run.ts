import { existsSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Context } from "../core/context.ts";
import { copySparse } from "../core/copy.ts";
import { isErrno, MvmError, messageOf } from "../core/errors.ts";
import { acquireLock } from "../core/locks.ts";
import { type InstanceName, parseInstanceName, type RevisionId, type TemplateName } from "../core/names.ts";
import { isAlive, ownIdentity } from "../core/process-identity.ts";
import { makeStagingDirectory, sweepStaging } from "../core/staging.ts";
import type { AgentClient } from "../guest/agent-client.ts";
import { newIdentity } from "../guest/identity.ts";
import { chooseDriver } from "../hypervisor/choose.ts";
import type { Driver, HypervisorIdentity, PortForward, SnapshotFiles, VmConfig, VmRef } from "../hypervisor/driver.ts";
import { currentRevision, readRevision, type StoredRevision } from "../template/revisions.ts";
import { damageOf, readSnapshots, type StoredSnapshot } from "../template/snapshots.ts";
import { type VmSizes, vmConfigOf } from "../template/vm-config.ts";
import { madeUpName } from "./made-up-name.ts";
import { requireFreePorts } from "./ports.ts";
import type { InstanceRecord } from "./record.ts";
import { DATA_DISK, instanceStatus, writeRecord } from "./records.ts";
import { planStart, type StartPlan } from "./start-plan.ts";
import type { Volume } from "./volumes.ts";

export interface RunRequest {
  readonly template: TemplateName;
  /** The current one if not given. */
  readonly revision?: RevisionId;
  /** Made up if not given. */
  readonly name?: InstanceName;
  readonly ports: readonly PortForward[];
  readonly volumes: readonly Volume[];
  readonly env: Readonly<Record<string, string>>;
  /** The revision's if not given. Other sizes than a snapshot's mean a cold boot. */
  readonly cpus?: number;
  readonly memMiB?: number;
  readonly dataDiskMiB?: number;
  readonly hypervisor?: string;
  /** Lock the hypervisor up with a user, a cgroup and a root of its own. */
  readonly jail?: boolean;
  /** Boot even if a snapshot would fit. */
  readonly cold: boolean;
  /** `running`: the agent answered and knows who it is. `healthy`: every check has passed since. */
  readonly waitFor: "running" | "healthy";
  readonly timeoutMs: number;
  /** End the VM with this process. */
  readonly dieWithParent?: boolean;
}

export interface RunOutcome {
  readonly name: InstanceName;
  readonly template: TemplateName;
  readonly revision: RevisionId;
  readonly start: "restored" | "booted";
  /** Why it was not restored. */
  readonly coldBootReason?: string;
  readonly hypervisor: HypervisorIdentity;
  readonly ports: readonly PortForward[];
  /** Milliseconds from the call to the agent's answer. */
  readonly runningMs: number;
  /** Milliseconds from the call to every check having passed, if that was waited for. */
  readonly healthyMs?: number;
}

/** Names of ended instances are taken over one command at a time. */
const CLAIM_TIMEOUT_MS = 10_000;

/**
 * Starts an instance: restores it if a snapshot fits, boots it otherwise. A start that fails leaves nothing behind,
 * but the data disk of an earlier instance of that name.
 * @throws MvmError `TEMPLATE_NOT_FOUND`, `NOT_BUILT`, `INSTANCE_EXISTS`, `PORT_IN_USE`, `GUEST_UNHEALTHY`, `VM_DIED`, …
 */
export async function runInstance(ctx: Context, request: RunRequest): Promise<RunOutcome> {
  const started = performance.now();
  sweepStaging(ctx.paths.instances);
  const revision = revisionToRun(ctx, request);
  const driver = await chooseDriver(ctx, request.hypervisor, {
    jail: request.jail === true,
  });
  requireCapabilities(driver, request);
  const host = await driver.probe(ctx.signal);
  await requireFreePorts(request.ports);
  const { spec } = revision.manifest;
  const sizes: VmSizes = {
    cpus: request.cpus ?? spec.cpus,
    memMiB: request.memMiB ?? spec.memMiB,
    dataDiskMiB: request.dataDiskMiB ?? spec.dataDiskMiB,
  };
  const name = request.name ?? parseInstanceName(madeUpName());
  const keptDataDisk = existsSync(join(ctx.paths.instance(name), DATA_DISK));
  const plan = await choosePlan(ctx, request, revision, { host, sizes, keptDataDisk });
  const record: InstanceRecord = {
    version: 1,
    name,
    template: request.template,
    revision: revision.id,
    hypervisor: host,
    state: "starting",
    starter: ownIdentity(),
    start: plan.start,
    ...(plan.start === "booted" ? { coldBootReason: plan.reason } : {}),
    ...sizes,
    ports: [...request.ports],
    createdAt: new Date().toISOString(),
  };
  const directory = await claimName(ctx, name, record, driver);
  const ownsDisk = existsSync(join(directory, DATA_DISK));
  const starting: Starting = { ctx, request, revision, driver, plan, directory, record, started, sizes, ownsDisk };
  try {
    return await bringUp(starting);
  } catch (error) {
    await discard(starting);
    throw error;
  }
}

/** @throws MvmError `JAIL_UNSUPPORTED` */
function requireCapabilities(driver: Driver, { jail }: RunRequest): void {
  if (!jail || driver.capabilities.jail) return;
  throw new MvmError("JAIL_UNSUPPORTED", `${driver.name} has no jail: --jail is for Firecracker`, {
    hint: "leave --jail out, or choose --hypervisor firecracker",
  });
}

/** @throws MvmError `TEMPLATE_NOT_FOUND`, `NOT_BUILT`, `REVISION_NOT_FOUND` */
function revisionToRun({ paths }: Context, { template, revision }: RunRequest): StoredRevision {
  if (!existsSync(paths.template(template))) {
    throw new MvmError("TEMPLATE_NOT_FOUND", `there is no template '${template}'`, {
      hint: `mvmctl template list shows what there is; mvmctl template create ${template} makes it`,
    });
  }
  const found = revision ? readRevision(paths, template, revision) : currentRevision(paths, template);
  if (found) return found;
  throw new MvmError("NOT_BUILT", `template ${template} was never built`, {
    hint: `build it: mvmctl template build ${template} --snapshot`,
  });
}

async function choosePlan(
  ctx: Context,
  request: RunRequest,
  revision: StoredRevision,
  facts: { host: HypervisorIdentity; sizes: VmSizes; keptDataDisk: boolean },
): Promise<StartPlan> {
  const directory = ctx.paths.snapshots(request.template, revision.id);
  const broken: string[] = [];
  const snapshots = readSnapshots(directory, (key, why) => broken.push(`the snapshot ${key} is damaged: ${why}`));
  const plan = planStart({ ...facts, snapshots, cold: request.cold });
  if (plan.start === "booted")
    return snapshots.length === 0 && broken[0] ? { start: "booted", reason: broken[0] } : plan;
  const damage = await damageOf(plan.snapshot, ctx.signal);
  return damage === undefined ? plan : { start: "booted", reason: `the snapshot is damaged: ${damage}` };
}

/**
 * Makes the instance's directory, with its record in it, in one rename: of two runs with one name, one gets it. The
 * directory of an ended instance is replaced, and its data disk taken over.
 * @throws MvmError `INSTANCE_EXISTS`
 */
async function claimName(
  { paths }: Context,
  name: InstanceName,
  record: InstanceRecord,
  driver: Driver,
): Promise<string> {
  const target = paths.instance(name);
  using staging = makeStagingDirectory(paths.instances, name);
  writeRecord(staging.path, record);
  if (renameUnlessTaken(staging.path, target)) return target;
  await using _lock = await acquireLock(target, { purpose: `starting ${name}`, timeoutMs: CLAIM_TIMEOUT_MS });
  const status = instanceStatus(paths, name);
  if (status && status.state !== "stopped" && status.state !== "dead") {
    throw new MvmError("INSTANCE_EXISTS", `the name '${name}' is in use: that instance is ${status.state}`, {
      hint: `choose another --name, or end it: mvmctl stop ${name}`,
    });
  }
  if (status?.state === "dead") await driver.kill({ directory: target, process: status.record.process });
  using trash = makeStagingDirectory(paths.instances, `${name}-old`);
  const old = join(trash.path, "old");
  if (existsSync(target)) renameSync(target, old);
  if (existsSync(join(old, DATA_DISK))) renameSync(join(old, DATA_DISK), join(staging.path, DATA_DISK));
  if (renameUnlessTaken(staging.path, target)) return target;
  throw new MvmError("INSTANCE_EXISTS", `the name '${name}' was just taken`, { hint: "choose another --name" });
}

function renameUnlessTaken(from: string, to: string): boolean {
  try {
    renameSync(from, to);
    return true;
  } catch (error) {
    if (isErrno(error, "ENOTEMPTY", "EEXIST")) return false;
    throw error;
  }
}

interface Starting {
  readonly ctx: Context;
  readonly request: RunRequest;
  readonly revision: StoredRevision;
  readonly driver: Driver;
  readonly plan: StartPlan;
  readonly directory: string;
  readonly record: InstanceRecord;
  readonly sizes: VmSizes;
  /** There is a data disk of an earlier instance of this name. */
  readonly ownsDisk: boolean;
  /** performance.now() of the call. */
  readonly started: number;
}

async function bringUp(starting: Starting): Promise<RunOutcome> {
  const { ctx, request, plan, driver, directory, record, started } = starting;
  const name = record.name as InstanceName;
  const deadlineMs = Date.now() + request.timeoutMs;
  ctx.report({ kind: "step", text: plan.start === "restored" ? "Restoring the snapshot" : "Booting" });
  if (plan.start === "booted") ctx.report({ kind: "note", text: `cold boot: ${plan.reason}` });
  const outcome = {
    name,
    template: request.template,
    revision: starting.revision.id,
    start: plan.start,
    ...(plan.start === "booted" ? { coldBootReason: plan.reason } : {}),
    hypervisor: record.hypervisor,
    ports: request.ports,
  };
  const settle = (vm: VmRef) => writeRecord(directory, { ...record, state: "running", process: vm.process });
  if (!starting.revision.manifest.image.agent) {
    settle(await startVm(starting));
    ctx.report({ kind: "note", text: "the image has no agent: whether the guest is up can't be asked" });
    return { ...outcome, runningMs: performance.now() - started };
  }

  const contact = await startAndConnect(starting, deadlineMs);
  const { vm } = contact;
  await using client = contact.client;
  await deliver(client, request.volumes, ctx.signal);
  await client.wake(newIdentity(name, starting.revision.manifest.spec.role, request.env), ctx.signal);
  const runningMs = performance.now() - started;
  settle(vm);
  if (request.waitFor === "running") return { ...outcome, runningMs };

  ctx.report({ kind: "step", text: "Waiting until every health check passes" });
  const { waitHealthy } = await import("../guest/health.ts");
  await waitHealthy(client, {
    deadlineMs,
    signal: ctx.signal,
    onProgress: (missing) => {
      if (!isAlive(vm.process)) throw driver.explainEnd(directory);
      ctx.report({ kind: "detail", text: missing });
    },
  });
  return { ...outcome, runningMs, healthyMs: performance.now() - started };
}

async function startAndConnect(starting: Starting, deadlineMs: number): Promise<{ vm: VmRef; client: AgentClient }> {
  const { ctx, plan, driver, directory } = starting;
  const { signal } = ctx;
  if (plan.start === "booted") {
    const { bootAndConnect } = await import("../guest/first-contact.ts");
    const onRetry = (text: string) => ctx.report({ kind: "note", text });
    return await bootAndConnect({ boot: () => startVm(starting), driver, directory, deadlineMs, signal, onRetry });
  }
  return await restoreAndConnect(starting, deadlineMs);
}

/** Connects while the hypervisor loads: it takes as long, and a greeting waits in the agent's port for the guest to run. */
async function restoreAndConnect(starting: Starting, deadlineMs: number): Promise<{ vm: VmRef; client: AgentClient }> {
  const { ctx, driver, directory } = starting;
  const endpoint = driver.agentEndpoint(directory);
  const givenUp = new AbortController();
  const connect = async (vm: VmRef) => {
    const { AgentClient } = await import("../guest/agent-client.ts");
    const checkAlive = () => {
      if (!isAlive(vm.process)) throw driver.explainEnd(directory);
    };
    const signal = AbortSignal.any([ctx.signal, givenUp.signal]);
    return await AgentClient.open(endpoint, { deadlineMs, signal, checkAlive });
  };
  let connecting: Promise<AgentClient> | undefined;
  try {
    const vm = await startVm(starting, (vm) => {
      // Nobody listens behind a vsock before the guest runs.
      if (endpoint.kind === "vsock") return;
      connecting = connect(vm);
      connecting.catch(() => {});
    });
    return { vm, client: await (connecting ?? connect(vm)) };
  } catch (error) {
    givenUp.abort();
    await connecting?.then((client) => client[Symbol.asyncDispose]()).catch(() => {});
    throw error;
  }
}

async function startVm(starting: Starting, onStarted?: (vm: VmRef) => void): Promise<VmRef> {
  const { ctx, plan, driver, directory, revision, sizes, request, record } = starting;
  const dataDisk = await provideDataDisk(ctx, plan, directory, sizes);
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
  const vm = driver.capabilities.userNetwork ? await start(config) : await startOnTap(ctx, driver, config, start);
  writeRecord(directory, { ...record, process: vm.process });
  return vm;
}

/** For hypervisors that bring no network. Loaded when it is needed: a start must not pay for what it does not use. */
async function startOnTap(
  ctx: Context,
  driver: Driver,
  config: VmConfig,
  start: (config: VmConfig) => Promise<VmRef>,
): Promise<VmRef> {
  const { startInNetwork } = await import("../host/network.ts");
  return await startInNetwork(driver, config, ctx, start);
}

function snapshotFiles({ directory, snapshot }: StoredSnapshot): SnapshotFiles {
  const { vmstate, memory } = snapshot.files;
  return { vmstate: join(directory, vmstate.file), memory: join(directory, memory.file) };
}

/** The instance's own disk: kept from its earlier life, copied from the snapshot, or new. */
async function provideDataDisk(
  ctx: Context,
  plan: StartPlan,
  directory: string,
  sizes: VmSizes,
): Promise<string | undefined> {
  const path = join(directory, DATA_DISK);
  if (existsSync(path)) return path;
  if (sizes.dataDiskMiB === 0) return undefined;
  const captured = plan.start === "restored" ? plan.snapshot.snapshot.files.dataDisk : undefined;
  if (captured && plan.start === "restored")
    await copySparse(join(plan.snapshot.directory, captured.file), path, ctx.signal);
  else {
    const { createDataDisk } = await import("../host/data-disk.ts");
    await createDataDisk(path, sizes.dataDiskMiB, ctx.signal);
  }
  return path;
}

/** Copies directories into the guest before its services run on. */
async function deliver(client: AgentClient, volumes: readonly Volume[], signal: AbortSignal): Promise<void> {
  if (volumes.length === 0) return;
  const { putFiles } = await import("../guest/files.ts");
  for (const { hostPath, guestPath } of volumes) {
    await putFiles(client, hostPath, guestPath, undefined, { signal });
  }
}

/** After a failed start: ends the VM and removes what was made, but never somebody's data. */
async function discard({ ctx, driver, directory, record, ownsDisk }: Starting): Promise<void> {
  try {
    await driver.kill({ directory });
    if (ownsDisk) writeRecord(directory, { ...record, state: "stopped" });
    else rmSync(directory, { recursive: true, force: true });
  } catch (error) {
    ctx.report({ kind: "note", text: `could not clean up ${directory}: ${messageOf(error)}` });
  }
}
