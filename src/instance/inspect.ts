import type { Context } from "../core/context.ts";
import { messageOf } from "../core/errors.ts";
import type { InstanceName } from "../core/names.ts";
import type { AgentInfo, Health } from "../guest/agent-types.ts";
import { connectAgent, driverOf, requireLive } from "./connect.ts";
import type { InstanceStatus } from "./record.ts";
import { requireInstance } from "./records.ts";

export interface InstanceDetails {
  readonly status: InstanceStatus;
  readonly directory: string;
  /** What the guest says of itself, if it runs and has an agent. */
  readonly guest?: { readonly info: AgentInfo; readonly health: Health };
  /** Why the guest could not be asked. */
  readonly guestError?: string;
  readonly logs?: { readonly console: string; readonly hypervisor: string };
}

/** Everything there is to know of an instance. @throws MvmError `INSTANCE_NOT_FOUND` */
export async function inspectInstance(ctx: Context, name: InstanceName): Promise<InstanceDetails> {
  const status = requireInstance(ctx.paths, name);
  const directory = ctx.paths.instance(name);
  if (status.state === "broken") return { status, directory };
  const logs = driverOf(ctx, status.record).logFiles(directory);
  if (status.state !== "running") return { status, directory, logs };
  try {
    await using client = await connectAgent(ctx, requireLive(ctx, name));
    const guest = { info: await client.info(ctx.signal), health: await client.health(0, ctx.signal) };
    return { status, directory, logs, guest };
  } catch (error) {
    ctx.signal.throwIfAborted();
    return { status, directory, logs, guestError: messageOf(error) };
  }
}
