import { existsSync, mkdirSync, renameSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type FileIndex, indexFile } from "../core/chunks.ts";
import { monotonicMs } from "../core/clock.ts";
import type { Context } from "../core/context.ts";
import { digHoles } from "../core/copy.ts";
import { requireSpace } from "../core/disk-space.ts";
import { allocatedBytes } from "../core/disk-usage.ts";
import { writeDocument } from "../core/documents.ts";
import { MvmError, messageOf } from "../core/errors.ts";
import { ensureDirectory, makeReadOnly, syncDirectory, syncFile } from "../core/files.ts";
import { formatMs, MiB } from "../core/sizes.ts";
import { makeStagingDirectory } from "../core/staging.ts";
import { bootAndConnect } from "../guest/first-contact.ts";
import { waitHealthy } from "../guest/health.ts";
import { newIdentity } from "../guest/identity.ts";
import { createDataDisk } from "../host/data-disk.ts";
import { startInNetwork } from "../host/network.ts";
import type { Driver, HypervisorIdentity, VmConfig, VmRef } from "../hypervisor/driver.ts";
import { requireAlive } from "../hypervisor/require-alive.ts";
import { writeChunkIndex } from "./chunk-index.ts";
import { digestOf, type Manifest } from "./revision.ts";
import { SnapshotDocument } from "./snapshot.ts";
import { readSnapshots, type StoredSnapshot, snapshotKey, writeGuard } from "./snapshots.ts";
import { vmConfigOf } from "./vm-config.ts";

const VMSTATE = "vmstate.bin";
const MEMORY = "mem.bin";
const DATA_DISK = "data.img";

/** Longer takes no more off a restore (docs/decisions/0010). */
const SETTLE_MS = 200;
const PREPARE_TIMEOUT_MS = 60_000;
/** What a snapshot takes besides memory and data disk: vmstate, logs. */
const SPARE_BYTES = 16 * MiB;

export interface CaptureRequest {
  readonly revision: { readonly id: string; readonly directory: string; readonly manifest: Manifest };
  /** Of the revision: where snapshots/KEY is made. */
  readonly snapshotsDirectory: string;
  readonly driver: Driver;
  /** For all of it, from booting to being healthy. */
  readonly timeoutMs: number;
}

/** The steps of a capture, in their order: an error names the one it happened in. */
type Step =
  | "make the data disk"
  | "boot"
  | "wait for the agent"
  | "wait until healthy"
  | "prepare the guest"
  | "pause"
  | "write the state"
  | "store";

/**
 * Boots a temporary VM of a revision, waits until it is healthy, pauses it and stores its state beside the revision.
 * The VM is killed, never resumed. Whatever fails leaves no VM and no snapshot, and the revision as it was.
 * @throws MvmError `SNAPSHOT_FAILED`, naming the step, with the console's last lines
 */
export async function captureSnapshot(ctx: Context, request: CaptureRequest): Promise<StoredSnapshot> {
  const { revision, driver } = request;
  if (!revision.manifest.image.agent) {
    throw new MvmError(
      "NO_AGENT",
      `template ${revision.manifest.template} can't be snapshotted: its image has no agent to ask whether it is healthy`,
      {
        hint: "build the image with mkGuest",
      },
    );
  }
  const identity = await driver.probe(ctx.signal);
  ensureDirectory(request.snapshotsDirectory);
  const { memMiB, dataDiskMiB } = revision.manifest.spec;
  // Both are sparse, and the guest may fill them: a disk that is full on the way is an error that no guest gets over.
  requireSpace(request.snapshotsDirectory, (memMiB + dataDiskMiB) * MiB + SPARE_BYTES, "a snapshot");
  using staging = makeStagingDirectory(request.snapshotsDirectory, "snapshot");
  const vmDirectory = join(staging.path, "vm");
  const files = join(staging.path, "files");
  mkdirSync(vmDirectory);
  mkdirSync(files);

  let step: Step = "boot";
  const begin = (next: Step, text: string) => {
    step = next;
    ctx.report({ kind: "step", text });
  };
  let vm: VmRef | undefined;
  try {
    const times = await bootAndFreeze(ctx, request, { vmDirectory, files }, begin, (started) => {
      vm = started;
    });
    begin("store", "Storing the snapshot");
    return await publish(ctx, request, identity, { staging: staging.path, files }, times);
  } catch (error) {
    if (ctx.signal.aborted) throw error;
    throw captureFailed(revision.manifest.template, step, error, driver, vmDirectory);
  } finally {
    if (vm) await driver.kill(vm);
  }
}

interface Times {
  readonly bootMs: number;
  readonly healthyMs: number;
}

/** Boots, waits, pauses, writes the VM's state, and ends the VM. */
async function bootAndFreeze(
  ctx: Context,
  { revision, driver, timeoutMs }: CaptureRequest,
  { vmDirectory, files }: { vmDirectory: string; files: string },
  begin: (step: Step, text: string) => void,
  onStarted: (vm: VmRef) => void,
): Promise<Times> {
  const { spec, template } = revision.manifest;
  const dataDisk = spec.dataDiskMiB > 0 ? join(files, DATA_DISK) : undefined;
  if (dataDisk) {
    begin("make the data disk", "Making the data disk");
    await createDataDisk(dataDisk, spec.dataDiskMiB, ctx.signal);
  }
  begin("boot", "Booting a temporary VM");
  const started = monotonicMs();
  const deadlineMs = Date.now() + timeoutMs;
  const config = vmConfigOf(revision, { directory: vmDirectory, dataDisk, ports: [] }, spec);
  const memoryFile = join(files, MEMORY);
  const boot = async () => {
    rmSync(memoryFile, { force: true });
    const start = (vmConfig: VmConfig) => driver.boot(vmConfig, { memoryFile, dieWithParent: true });
    const { env, signal } = ctx;
    const vm = await (driver.capabilities.userNetwork ? start(config) : startInNetwork(config, { env, signal }, start));
    onStarted(vm);
    begin("wait for the agent", "Waiting for the guest's agent");
    return vm;
  };
  const onRetry = (text: string) => ctx.report({ kind: "note", text });
  const contact = await bootAndConnect({
    boot,
    driver,
    directory: vmDirectory,
    deadlineMs,
    signal: ctx.signal,
    onRetry,
  });
  const { vm } = contact;

  const times = await (async () => {
    await using client = contact.client;
    await client.wake(newIdentity(template, spec.role, {}), ctx.signal);
    const bootMs = monotonicMs() - started;
    begin("wait until healthy", "Waiting until every health check passes");
    await waitHealthy(client, {
      deadlineMs,
      signal: ctx.signal,
      onProgress: (missing) => {
        requireAlive(vm, driver);
        ctx.report({ kind: "detail", text: missing });
      },
    });
    const healthyMs = monotonicMs() - started;
    ctx.report({ kind: "note", text: `healthy ${formatMs(healthyMs)} after the start` });
    begin("prepare the guest", "Preparing the guest");
    await client.prepare(PREPARE_TIMEOUT_MS, ctx.signal);
    return { bootMs: Math.round(bootMs), healthyMs: Math.round(healthyMs) };
  })();
  // The guest has yet to see that its client left, and what it had put off until later: every clone would begin with that.
  await delay(SETTLE_MS, undefined, { signal: ctx.signal });
  begin("pause", "Pausing the VM");
  await driver.pause(vm, "snapshot");
  begin("write the state", "Writing the VM's state");
  await driver.snapshot(vm, { vmstate: join(files, VMSTATE), memory: memoryFile });
  await driver.kill(vm);
  return times;
}

/** Syncs, digests and publishes what was captured, with one rename. */
async function publish(
  ctx: Context,
  { revision, snapshotsDirectory }: CaptureRequest,
  identity: HypervisorIdentity,
  { staging, files }: { staging: string; files: string },
  times: Times,
): Promise<StoredSnapshot> {
  const { cpus, memMiB, dataDiskMiB } = revision.manifest.spec;
  const index: Record<string, FileIndex> = {};
  const seal = async (file: string) => {
    const sealed = await sealFile(join(files, file), ctx.signal);
    index[file] = sealed;
    return digestOf(file, sealed);
  };
  const vmstate = await seal(VMSTATE);
  // A guest's kernel clears what it gives out: a third of the memory that was touched is zeros.
  await digHoles(join(files, MEMORY), ctx.signal);
  const memory = await seal(MEMORY);
  const dataDisk = dataDiskMiB > 0 ? await seal(DATA_DISK) : undefined;
  writeChunkIndex(files, index);
  writeDocument(SnapshotDocument, join(files, "snapshot.json"), {
    revision: revision.id,
    hypervisor: identity,
    cpus,
    memMiB,
    dataDiskMiB,
    createdAt: new Date().toISOString(),
    ...times,
    files: { vmstate, memory, ...(dataDisk ? { dataDisk } : {}) },
  });
  const key = snapshotKey(identity);
  const target = join(snapshotsDirectory, key);
  // A rename can't replace a directory that has files. A killed mvmctl between these two leaves the revision without
  // a snapshot, which the next build makes again; removing the old one in its place would leave half of it.
  if (existsSync(target)) renameSync(target, join(staging, "replaced"));
  renameSync(files, target);
  syncDirectory(staging);
  syncDirectory(snapshotsDirectory);
  const stored = readSnapshots(snapshotsDirectory).find((snapshot) => snapshot.key === key);
  if (!stored) throw new Error(`the snapshot ${target} can't be read back`);
  writeGuard(target, stored.snapshot);
  return stored;
}

async function sealFile(path: string, signal: AbortSignal): Promise<FileIndex> {
  makeReadOnly(path);
  syncFile(path);
  return await indexFile(path, signal);
}

function captureFailed(template: string, step: Step, error: unknown, driver: Driver, vmDirectory: string): unknown {
  if (!(error instanceof MvmError)) return error;
  const evidence = error.code === "VM_DIED" ? "" : driver.explainEnd(vmDirectory).detail;
  const detail = [error.detail, evidence && `the console's last lines:\n${evidence}`].filter(Boolean).join("\n");
  return new MvmError("SNAPSHOT_FAILED", `no snapshot of ${template}: the step '${step}' failed: ${messageOf(error)}`, {
    cause: error,
    detail,
    hint:
      error.code === "GUEST_UNHEALTHY"
        ? "correct the service or its check in flake.nix, or give it longer with --timeout"
        : (error.hint ?? "try again"),
  });
}

/** Bytes that a snapshot's memory takes on the disk. */
export function memoryOnDisk(stored: StoredSnapshot): number {
  return allocatedBytes(statSync(join(stored.directory, stored.snapshot.files.memory.file)));
}
