import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import type { InstanceName } from "../core/names.ts";
import { AgentClient } from "../guest/agent-client.ts";
import type { Driver, VmRef } from "../hypervisor/driver.ts";
import { driverNamed } from "../hypervisor/drivers.ts";
import { requireAlive } from "../hypervisor/require-alive.ts";
import type { InstanceRecord } from "./record.ts";
import { requireInstance } from "./records.ts";

/** A VM that runs now, and the driver that it was started with. */
export interface LiveInstance {
  readonly name: InstanceName;
  readonly record: InstanceRecord;
  readonly vm: VmRef;
  readonly driver: Driver;
}

/** A running guest answers at once; one that is busy, or emulated on a busy machine, gets longer. */
const CONNECT_TIMEOUT_MS = 20_000;

export function driverOf(ctx: Context, record: InstanceRecord): Driver {
  return driverNamed(ctx, record.hypervisor.name);
}

/**
 * @param states in which the instance is of use to the caller
 * @throws MvmError `INSTANCE_NOT_FOUND`, `INSTANCE_NOT_RUNNING`
 */
export function requireLive(
  ctx: Context,
  name: InstanceName,
  states: readonly ("running" | "paused")[] = ["running"],
): LiveInstance {
  const status = requireInstance(ctx.paths, name);
  if (status.state === "broken")
    throw new MvmError("CORRUPT_FILE", status.reason, { hint: `remove it: mvmctl rm ${name} --force` });
  const { record, state } = status;
  if ((state === "running" || state === "paused") && states.includes(state) && record.process) {
    return {
      name,
      record,
      vm: { directory: ctx.paths.instance(name), process: record.process },
      driver: driverOf(ctx, record),
    };
  }
  const hints: Record<string, string> = {
    paused: `let it run on: mvmctl resume ${name}`,
    running: "",
    starting: "wait until it runs",
    stopped: `start it again: mvmctl start ${name}`,
    dead: `see why: mvmctl logs ${name} --console; start it again: mvmctl start ${name}`,
  };
  const why = status.state === "dead" ? `it is dead: ${status.reason}` : `it is ${state}`;
  throw new MvmError("INSTANCE_NOT_RUNNING", `instance '${name}' can't be used: ${why}`, { hint: hints[state] ?? "" });
}

/** Opens a session with a running instance's agent. @throws as requireLive and AgentClient.open */
export function connectAgent(
  ctx: Context,
  { vm, driver }: LiveInstance,
  timeoutMs = CONNECT_TIMEOUT_MS,
): Promise<AgentClient> {
  return AgentClient.open(driver.agentEndpoint(vm.directory), {
    deadlineMs: Date.now() + timeoutMs,
    signal: ctx.signal,
    checkAlive: () => requireAlive(vm, driver),
  });
}
