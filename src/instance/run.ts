import { existsSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { monotonicMs } from "../core/clock.ts";
import type { Context } from "../core/context.ts";
import { isErrno, MvmError, messageOf } from "../core/errors.ts";
import { acquireLock } from "../core/locks.ts";
import { type InstanceName, parseInstanceName } from "../core/names.ts";
import { isAlive, ownIdentity } from "../core/process-identity.ts";
import { makeStagingDirectory, sweepStaging } from "../core/staging.ts";
import type { AgentClient } from "../guest/agent-client.ts";
import { newIdentity } from "../guest/identity.ts";
import { chooseDriver } from "../hypervisor/choose.ts";
import type { Driver, HypervisorIdentity, VmRef } from "../hypervisor/driver.ts";
import { currentRevision, readRevision, type StoredRevision } from "../template/revisions.ts";
import { damageOf, readSnapshots } from "../template/snapshots.ts";
import type { VmSizes } from "../template/vm-config.ts";
import { madeUpName } from "./made-up-name.ts";
import { requireFreePorts } from "./ports.ts";
import type { InstanceRecord } from "./record.ts";
import { DATA_DISK, instanceStatus, writeRecord } from "./records.ts";
import type { RunOutcome, RunRequest, Starting } from "./run-request.ts";
import { planStart, type StartPlan } from "./start-plan.ts";
import { isIsolated, startAndConnect, startVm } from "./start-vm.ts";
import type { Volume } from "./volumes.ts";

/** Names of ended instances are taken over one command at a time. */
const CLAIM_TIMEOUT_MS = 10_000;

/**
 * Starts an instance: restores it if a snapshot fits, boots it otherwise. A start that fails leaves nothing behind,
 * but the data disk of an earlier instance of that name.
 * @throws MvmError `TEMPLATE_NOT_FOUND`, `NOT_BUILT`, `INSTANCE_EXISTS`, `PORT_IN_USE`, `GUEST_UNHEALTHY`, `VM_DIED`, …
 */
export async function runInstance(ctx: Context, request: RunRequest): Promise<RunOutcome> {
  const started = monotonicMs();
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
    isolated: isIsolated(driver, request),
    createdAt: new Date().toISOString(),
  };
  const directory = await claimName(ctx, name, record, driver);
  const ownsDisk = existsSync(join(directory, DATA_DISK));
  const starting = { ctx, request, revision, driver, plan, directory, record, started, sizes, ownsDisk };
  try {
    return await bringUp(starting);
  } catch (error) {
    await discard(starting);
    throw error;
  }
}

/** @throws MvmError `JAIL_UNSUPPORTED`, `NOT_ISOLATED` */
function requireCapabilities(driver: Driver, request: RunRequest): void {
  if (request.jail && !driver.capabilities.jail) {
    throw new MvmError("JAIL_UNSUPPORTED", `${driver.name} has no jail: --jail is for Firecracker`, {
      hint: "leave --jail out, or choose --hypervisor firecracker",
    });
  }
  if (request.allow?.length && !isIsolated(driver, request)) {
    throw new MvmError("NOT_ISOLATED", "--allow is for a guest that is isolated: nothing is blocked for this one", {
      hint: "add --isolate, or leave --allow out",
    });
  }
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
    return { ...outcome, runningMs: monotonicMs() - started };
  }

  const contact = await startAndConnect(starting, deadlineMs);
  const { vm } = contact;
  await using client = contact.client;
  await deliver(client, request.volumes, ctx.signal);
  await client.wake(newIdentity(name, starting.revision.manifest.spec.role, request.env), ctx.signal);
  const runningMs = monotonicMs() - started;
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
  return { ...outcome, runningMs, healthyMs: monotonicMs() - started };
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
