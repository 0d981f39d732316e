import { existsSync, renameSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { monotonicMs } from "../core/clock.ts";
import type { Context } from "../core/context.ts";
import { MvmError, messageOf } from "../core/errors.ts";
import { acquireLock } from "../core/locks.ts";
import { type InstanceName, parseInstanceName } from "../core/names.ts";
import { ownIdentity } from "../core/process-identity.ts";
import { makeStagingDirectory, sweepStaging } from "../core/staging.ts";
import { chooseDriver } from "../hypervisor/choose.ts";
import type { Driver, HypervisorIdentity, VmRef } from "../hypervisor/driver.ts";
import { currentRevision, listRevisions, readRevision, type StoredRevision } from "../template/revisions.ts";
import { revisionOf } from "../template/rollback.ts";
import { damageOf, readSnapshots } from "../template/snapshots.ts";
import { templateNotFound } from "../template/store.ts";
import type { VmSizes } from "../template/vm-config.ts";
import { claimName } from "./claim-name.ts";
import { keptDataDiskMiB } from "./data-disk.ts";
import { endLeftoverVms } from "./leftover-vms.ts";
import { madeUpName } from "./made-up-name.ts";
import { choosePorts } from "./ports.ts";
import type { InstanceRecord } from "./record.ts";
import { DATA_DISK, instanceStatus, instanceWithPort, writeRecord } from "./records.ts";
import type { RunOutcome, RunRequest, Starting } from "./run-request.ts";
import { planStart, type StartPlan } from "./start-plan.ts";
import { writeStartSettings } from "./start-settings.ts";
import { isIsolated, startVm } from "./start-vm.ts";
import { startAndWake } from "./wake.ts";

/** Ctrl+C ends a start within two seconds: who holds the lock longer than this leaves it to the next command. */
const DISCARD_TIMEOUT_MS = 1500;

/**
 * Starts an instance: restores it if a snapshot fits, boots it otherwise. A start that fails leaves nothing behind,
 * but the data disk of an earlier instance of that name.
 * @throws MvmError `TEMPLATE_NOT_FOUND`, `NOT_BUILT`, `INSTANCE_EXISTS`, `DATA_DISK_MISMATCH`, `PORT_IN_USE`, `GUEST_UNHEALTHY`, `VM_DIED`, …
 */
export async function runInstance(ctx: Context, asked: RunRequest): Promise<RunOutcome> {
  const started = monotonicMs();
  sweepStaging(ctx.paths.instances);
  endLeftoverVms(ctx.paths);
  const revision = revisionToRun(ctx, asked);
  const driver = await chooseDriver(ctx, asked.hypervisor, {
    jail: asked.jail === true,
  });
  requireCapabilities(driver, asked);
  const host = await driver.probe(ctx.signal);
  const ports = await choosePorts(asked.ports, (port) => instanceWithPort(ctx.paths, port));
  const request = { ...asked, ports };
  const { spec } = revision.manifest;
  const name = request.name ?? parseInstanceName(madeUpName());
  const keptMiB = keptDataDiskMiB(ctx.paths.instance(name));
  const sizes: VmSizes = {
    cpus: request.cpus ?? spec.cpus,
    memMiB: request.memMiB ?? spec.memMiB,
    dataDiskMiB: request.dataDiskMiB ?? keptMiB ?? spec.dataDiskMiB,
  };
  if (request.dataDiskMiB === undefined && sizes.dataDiskMiB !== spec.dataDiskMiB) {
    const own = `it goes on with its data disk of ${sizes.dataDiskMiB} MiB; the template's has ${spec.dataDiskMiB} MiB`;
    ctx.report({ kind: "note", text: own });
  }
  const plan = await choosePlan(ctx, request, revision, { host, sizes, keptDataDisk: keptMiB !== undefined });
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
    ports: request.ports,
    isolated: isIsolated(driver, request),
    createdAt: new Date().toISOString(),
  };
  const directory = await claimName(ctx.paths, name, record, (dead) => endVm(ctx, dead));
  const ownsDisk = existsSync(join(directory, DATA_DISK));
  const starting = { ctx, request, revision, driver, plan, directory, record, started, sizes, ownsDisk };
  try {
    requireFittingDisk(starting);
    writeStartSettings(directory, request);
    return await bringUp(starting);
  } catch (error) {
    const told = withConsole(error, starting);
    await discard(starting);
    throw told;
  }
}

/**
 * The plan was made before the name was ours. A disk that is there only since, of an instance that ran and ended in
 * between, must not be under a guest that was restored: it remembers the content of another.
 * @throws MvmError `INSTANCE_EXISTS`
 */
function requireFittingDisk({ ownsDisk, plan, record: { name } }: Starting): void {
  if (!ownsDisk || plan.start === "booted") return;
  throw new MvmError("INSTANCE_EXISTS", `another instance '${name}' ran until just now, and left its data disk`, {
    hint: "run it again, to start with that disk, or choose another --name",
  });
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
  if (!existsSync(paths.template(template))) throw templateNotFound(paths, template);
  const found = revision
    ? readRevision(paths, template, revisionOf(template, listRevisions(paths, template), revision))
    : currentRevision(paths, template);
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

async function bringUp(starting: Starting): Promise<RunOutcome> {
  const { ctx, request, plan, directory, record, started } = starting;
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

  await using guest = await startAndWake(starting, deadlineMs);
  const runningMs = monotonicMs() - started;
  settle(guest.vm);
  if (request.waitFor === "running") return { ...outcome, runningMs };

  ctx.report({ kind: "step", text: "Waiting until every health check passes" });
  await guest.healthy();
  return { ...outcome, runningMs, healthyMs: monotonicMs() - started };
}

/** A guest that never answered is gone with its console: what that said last comes with the error. */
function withConsole(error: unknown, { driver, directory, record }: Starting): unknown {
  if (!(error instanceof MvmError) || error.code !== "AGENT_UNREACHABLE") return error;
  const said = driver.explainEnd(directory).detail;
  return new MvmError(error.code, `${record.name} did not start: ${error.message}`, {
    cause: error,
    ...(said ? { detail: `the console's last lines:\n${said}` } : {}),
    hint: "give it longer with --timeout; `mvmctl doctor` checks this machine",
  });
}

/** Ends what may still run of a dead instance. */
async function endVm(ctx: Context, dead: InstanceRecord): Promise<void> {
  const { driverOf } = await import("./connect.ts");
  await driverOf(ctx, dead).kill({ directory: ctx.paths.instance(dead.name as InstanceName), process: dead.process });
}

/** After a failed start: ends the VM and removes what was made, but never somebody's data. */
async function discard({ ctx, driver, directory, record, ownsDisk }: Starting): Promise<void> {
  const name = record.name as InstanceName;
  try {
    await using _lock = await acquireLock(directory, { purpose: `cleaning up ${name}`, timeoutMs: DISCARD_TIMEOUT_MS });
    // Somebody may have stopped it and taken the name, and with it the directory, while it started.
    if (!isOurs(ctx, record)) return;
    await driver.kill({ directory });
    if (!existsSync(directory)) return;
    if (ownsDisk) return writeRecord(directory, { ...record, state: "stopped" });
    // The name is free when the directory is gone as a whole, not when its last file is.
    using trash = makeStagingDirectory(ctx.paths.instances, `${name}-failed`);
    renameSync(directory, join(trash.path, "failed"));
  } catch (error) {
    ctx.report({ kind: "note", text: `could not clean up ${directory}: ${messageOf(error)}` });
  }
}

/** Whether an instance's directory is still that of this start. */
function isOurs(ctx: Context, { name, starter, createdAt }: InstanceRecord): boolean {
  const status = instanceStatus(ctx.paths, name as InstanceName);
  // Removed while it started: its VM may have come up since.
  if (!status) return true;
  if (status.state === "broken") return false;
  const { record } = status;
  return isDeepStrictEqual([record.starter, record.createdAt], [starter, createdAt]);
}
