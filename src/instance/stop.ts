import { closeSync, existsSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Context } from "../core/context.ts";
import { fileError, MvmError, messageOf } from "../core/errors.ts";
import { acquireLock } from "../core/locks.ts";
import type { InstanceName } from "../core/names.ts";
import { isAlive } from "../core/process-identity.ts";
import { makeStagingDirectory, sweepStaging } from "../core/staging.ts";
import type { AgentClient } from "../guest/agent-client.ts";
import { type LogLine, readLogs, renderLogLine, SERVICES_LOG } from "../guest/logs.ts";
import { connectAgent, driverOf, type LiveInstance, requireLive } from "./connect.ts";
import { requireInstance, writeRecord } from "./records.ts";

const LOCK_TIMEOUT_MS = 30_000;

export interface StopOutcome {
  readonly name: InstanceName;
  /** `graceful`: the guest shut itself down. `killed`: it did not in time. `already`: it did not run. */
  readonly how: "graceful" | "killed" | "already";
  /** Of a dead instance: why. It stays dead, so that this is not forgotten. */
  readonly reason?: string;
}

/**
 * Stops an instance: asks the guest to shut down, and ends it by force if it has not after `timeoutMs`. Its directory and
 * its data disk stay until `removeInstance`.
 * @throws MvmError `INSTANCE_NOT_FOUND`
 */
export async function stopInstance(
  ctx: Context,
  name: InstanceName,
  options: { timeoutMs: number },
): Promise<StopOutcome> {
  const directory = ctx.paths.instance(name);
  await using _lock = await acquireLock(directory, {
    purpose: `stopping ${name}`,
    timeoutMs: LOCK_TIMEOUT_MS,
    signal: ctx.signal,
  });
  const status = requireInstance(ctx.paths, name);
  if (status.state === "broken")
    throw new MvmError("CORRUPT_FILE", status.reason, { hint: `remove it: mvmctl rm ${name} --force` });
  const { record } = status;
  const driver = driverOf(ctx, record);
  const runs = status.state === "running" || status.state === "paused";
  if (status.state === "paused" && record.process) await driver.resume({ directory, process: record.process });
  const graceful = runs && (await shutDown(ctx, requireLive(ctx, name, ["running", "paused"]), options.timeoutMs));
  await driver.kill({ directory, process: record.process });
  if (status.state === "dead") return { name, how: "already", reason: status.reason };
  const { process: _, ...ended } = record;
  writeRecord(directory, { ...ended, state: "stopped" });
  return { name, how: graceful ? "graceful" : runs || status.state === "starting" ? "killed" : "already" };
}

/** Says whether the guest powered itself off in time. What its services said, up to the last line, is kept. */
async function shutDown(ctx: Context, live: LiveInstance, timeoutMs: number): Promise<boolean> {
  const deadline = Date.now() + timeoutMs;
  const signal = AbortSignal.any([ctx.signal, AbortSignal.timeout(timeoutMs)]);
  try {
    await using client = await connectAgent(ctx, live, Math.min(timeoutMs, 5000));
    const kept = keepLogs(ctx, client, live, signal);
    await client.shutdown(Math.max(0, timeoutMs - 1000));
    await kept;
  } catch (error) {
    if (!(error instanceof MvmError)) throw error;
    ctx.report({ kind: "note", text: `${live.name} could not be asked to shut down: ${error.message}` });
    return false;
  }
  while (isAlive(live.vm.process)) {
    if (Date.now() >= deadline) return false;
    ctx.signal.throwIfAborted();
    await delay(10);
  }
  return true;
}

/** Writes down what services said, and go on to say, until the guest or the signal ends it. */
async function keepLogs(ctx: Context, client: AgentClient, live: LiveInstance, signal: AbortSignal): Promise<void> {
  const path = join(live.vm.directory, SERVICES_LOG);
  try {
    const file = openSync(path, "w");
    const write = (line: LogLine) => void writeSync(file, renderLogLine(line));
    await readLogs(client, { follow: true }, write, signal).finally(() => closeSync(file));
  } catch (error) {
    // A guest that goes cuts its clients off, which is what it was asked for; a full disk must not keep it from going.
    const failure = fileError(error, path, "write");
    if (failure !== error) ctx.report({ kind: "note", text: `logs are not kept: ${messageOf(failure)}` });
  }
}

/**
 * Removes an instance and its data disk.
 * @throws MvmError `INSTANCE_NOT_FOUND`, `INSTANCE_RUNNING` without `force`
 */
export async function removeInstance(ctx: Context, name: InstanceName, options: { force: boolean }): Promise<void> {
  sweepStaging(ctx.paths.instances);
  const directory = ctx.paths.instance(name);
  await using _lock = await acquireLock(directory, {
    purpose: `removing ${name}`,
    timeoutMs: LOCK_TIMEOUT_MS,
    signal: ctx.signal,
  });
  const status = requireInstance(ctx.paths, name);
  const runs = status.state === "running" || status.state === "paused" || status.state === "starting";
  if (runs && !options.force) {
    throw new MvmError("INSTANCE_RUNNING", `instance '${name}' is ${status.state}`, {
      hint: `stop it first (mvmctl stop ${name}), or remove it with --force`,
    });
  }
  if (status.state === "broken" && !options.force) {
    throw new MvmError("CORRUPT_FILE", status.reason, { hint: `remove it all the same: mvmctl rm ${name} --force` });
  }
  if (status.state === "broken") await killWhateverRuns(ctx, directory);
  else await driverOf(ctx, status.record).kill({ directory, process: status.record.process });
  using trash = makeStagingDirectory(ctx.paths.instances, `${name}-removed`);
  if (existsSync(directory)) renameSync(directory, join(trash.path, "removed"));
  rmSync(trash.path, { recursive: true, force: true });
}

/** Without a record nobody knows the hypervisor; its processes say themselves whose they are. */
async function killWhateverRuns(ctx: Context, directory: string): Promise<void> {
  const [{ driverNamed }, { HYPERVISORS }] = await Promise.all([
    import("../hypervisor/drivers.ts"),
    import("../hypervisor/driver.ts"),
  ]);
  for (const name of HYPERVISORS) await driverNamed(ctx, name).kill({ directory });
}
