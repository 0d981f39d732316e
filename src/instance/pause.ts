import type { Context } from "../core/context.ts";
import { acquireLock } from "../core/locks.ts";
import type { InstanceName } from "../core/names.ts";
import { requireLive } from "./connect.ts";
import { writeRecord } from "./records.ts";

const LOCK_TIMEOUT_MS = 30_000;

/** Stops an instance's CPUs; its memory stays. @throws MvmError `INSTANCE_NOT_FOUND`, `INSTANCE_NOT_RUNNING` */
export function pauseInstance(ctx: Context, name: InstanceName): Promise<void> {
  return turn(ctx, name, "paused");
}

/** Lets a paused instance run on. @throws MvmError `INSTANCE_NOT_FOUND`, `INSTANCE_NOT_RUNNING` */
export function resumeInstance(ctx: Context, name: InstanceName): Promise<void> {
  return turn(ctx, name, "running");
}

async function turn(ctx: Context, name: InstanceName, state: "running" | "paused"): Promise<void> {
  const directory = ctx.paths.instance(name);
  await using _lock = await acquireLock(directory, {
    purpose: `changing ${name}`,
    timeoutMs: LOCK_TIMEOUT_MS,
    signal: ctx.signal,
  });
  const { record, vm, driver } = requireLive(ctx, name, ["running", "paused"]);
  if (state === "paused") await driver.pause(vm, "resume");
  else await driver.resume(vm);
  writeRecord(directory, { ...record, state });
}
